"""A policy, and a plan, as documents: everything they say, resolved, in the words of the policy file."""

from collections.abc import Mapping
from typing import assert_never

from secureworker.core.claim import Json
from secureworker.core.origin import TraceRule
from secureworker.core.plan import Limits, Mount, OutputRules, Plan
from secureworker.core.policy import Always, PayloadEquals, Policy, ScopeEquals, ScriptRule, TaskConstraints, When
from secureworker.core.trust import TrustKey
from secureworker.core.website import Website
from secureworker.policyfile.quantities import spell_duration, spell_size


def of_policy(policy: Policy) -> dict[str, Json]:
    """Give a policy with all defaults filled in and all paths resolved."""
    return {
        "sha256": policy.sha256,
        "root-url": policy.root_url,
        "worker-pool": str(policy.worker_pool),
        "worker-scopes": [{"scope": each.scope, "reason": each.reason} for each in policy.worker_scopes],
        "max-capacity": policy.max_capacity,
        "tasks": of_constraints(policy.tasks),
        "scripts": {rule.name: of_script(rule) for rule in policy.scripts},
        "trust": {
            str(pool.worker_pool): {
                "implementation": pool.implementation.value,
                "keys": [of_key(key) for key in pool.keys],
            }
            for pool in policy.trust
        },
        "trust-file": None if policy.trust_file is None else policy.trust_file.path,
        "files": {file.path: file.sha256 for file in policy.files},
    }


def of_key(key: TrustKey) -> dict[str, Json]:
    """Give a key whose signatures count."""
    return {
        "id": key.fingerprint,
        "state": key.state.value,
        "valid-from": key.valid_from.isoformat() if key.valid_from else None,
        "valid-until": key.valid_until.isoformat() if key.valid_until else None,
    }


def of_constraints(tasks: TaskConstraints) -> dict[str, Json]:
    """Give what every task must satisfy."""
    return {
        "scheduler-ids": list(tasks.scheduler_ids),
        "project-ids": list(tasks.project_ids),
        "sources": [str(source) for source in tasks.sources],
        "scopes": {"allow": list(tasks.scopes_allow), "forbid": list(tasks.scopes_forbid)},
        "definition": None if tasks.definition is None else dict(tasks.definition.document),
        "deny": [
            {
                "reason": rule.reason,
                "scopes": list(rule.scopes),
                "scheduler-ids": list(rule.scheduler_ids),
                "project-ids": list(rule.project_ids),
                "definition": None if rule.definition is None else dict(rule.definition.document),
            }
            for rule in tasks.deny
        ],
        "max-run-time": spell_duration(tasks.max_run_time),
    }


def of_trace(rule: TraceRule | None) -> Json:
    """Give how inputs are followed to the tree."""
    if rule is None:
        return None
    return {
        "decision-pools": list(rule.decision_pools),
        "repositories": [
            {
                "url": each.url,
                "mirror": each.mirror or None,
                "https": None if each.website is None else of_website(each.website),
                "branches": list(each.branches),
                "environment-prefix": each.prefix,
            }
            for each in rule.repositories
        ],
        "max-depth": rule.max_depth,
    }


def of_website(website: Website) -> dict[str, Json]:
    """Give where a repository is read over https."""
    asked = {"branch": website.branch} | ({} if website.tag is None else {"tag": website.tag})
    said: dict[str, Json] = {
        name: {"url": each.url, "key": each.key, "values": list(each.values)} for name, each in asked.items()
    }
    return {"file": website.file, **said}


def of_script(rule: ScriptRule) -> dict[str, Json]:
    """Give one script's rule."""
    upstream = rule.upstream
    return {
        "description": rule.description,
        "when": of_when(rule.when),
        "command": [word.source for word in rule.command],
        "pinned": {pin.path: pin.sha256 for pin in rule.pinned},
        "payload": dict(rule.payload_schema.document),
        "requires-scopes": [scope.source for scope in rule.requires_scopes],
        "environment": dict(rule.environment),
        "config": None if rule.config is None else rule.config.source,
        "secrets": {secret.file: secret.source for secret in rule.secrets},
        "limits": of_limits(rule.limits) | ({"enforced": False} if rule.unlimited else {}),
        "mounts": of_mounts(rule.mounts),
        "network": [str(destination) for destination in rule.network],
        "taskcluster": {
            "routes": [str(route) for route in rule.taskcluster.routes],
            "scopes": list(rule.taskcluster.scopes),
        },
        "upstream": None
        if upstream is None
        else {
            "required": upstream.required,
            "worker-pools": list(upstream.worker_pools),
            "max-size": spell_size(upstream.max_size),
            "forbid-features": list(upstream.forbid_features),
            "trace": of_trace(upstream.trace),
        },
        "artifacts": of_outputs(rule.outputs),
        "exit-codes": {str(code): resolution.value for code, resolution in rule.exit_codes.overrides},
        "on-shutdown": {"grace": spell_duration(rule.grace)},
        "repeatable": rule.repeatable,
        "exclusive": rule.exclusive,
        "live-log": rule.live_log,
    }


def of_when(when: When) -> dict[str, Json]:
    """Give what chooses a script."""
    match when:
        case Always():
            return {}
        case ScopeEquals(prefix, equals):
            return {"scope-prefix": prefix, "equals": equals}
        case PayloadEquals(field, equals):
            return {"payload-field": field, "equals": equals}
        case _:
            assert_never(when)


def of_limits(limits: Limits) -> dict[str, Json]:
    """Give limits."""
    return {
        "run-time": spell_duration(limits.run_time),
        "memory": spell_size(limits.memory_bytes),
        "processes": limits.processes,
        "cpus": limits.cpus,
        "disk": spell_size(limits.disk_bytes),
        "files": limits.files,
        "log": spell_size(limits.log_bytes),
        "open-files": limits.open_files,
    }


def of_mounts(mounts: tuple[Mount, ...]) -> list[Json]:
    """Give what is seen of the host."""
    return [{"source": mount.source, "target": mount.target, "read-only": mount.read_only} for mount in mounts]


def of_outputs(outputs: OutputRules) -> dict[str, Json]:
    """Give what may be published."""
    types: Mapping[str, Json] = dict(outputs.content_types)
    return {
        "allow": list(outputs.allow),
        "max-size": spell_size(outputs.max_size),
        "max-total": spell_size(outputs.max_total),
        "max-count": outputs.max_count,
        "expires": None if outputs.expires is None else spell_duration(outputs.expires),
        "content-types": dict(types),
        "on-failure": "publish" if outputs.on_failure else "discard",
    }


def of_plan(plan: Plan, rule: ScriptRule) -> dict[str, Json]:
    """Give what would be run."""
    return {
        "script": plan.script,
        "argv": [*plan.argv, *([] if plan.config is None else ["/task/config.json"])],
        "pinned": {pin.path: pin.sha256 for pin in plan.pinned},
        "environment": dict(plan.environment),
        "config": None if plan.config is None else dict(plan.config),
        "mounts": of_mounts(plan.mounts),
        "limits": of_limits(plan.limits),
        "network": [str(destination) for destination in plan.doors.destinations],
        # The scopes are what this very task gets: as far as both it and the rule have them.
        "taskcluster": {
            "routes": [str(route) for route in plan.doors.routes],
            "scopes": list(plan.doors.scopes),
        },
        "secrets": [secret.file for secret in rule.secrets],
        # Whether they are what their own workers signed is seen only when the task runs.
        "inputs": [
            {"taskId": wanted.task_id, "paths": list(wanted.paths), "optional": wanted.optional}
            for wanted in plan.inputs.wanted
        ],
        "trace": of_trace(plan.inputs.trace),
        "artifacts": of_outputs(plan.outputs),
        "repeatable": plan.repeatable,
        "exclusive": plan.exclusive,
        "live-log": plan.live_log,
    }
