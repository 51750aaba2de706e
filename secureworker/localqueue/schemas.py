"""What the services' requests look like, as JSON schemas. Facts of the published references, written down shorter.

Only what is sent *to* the services: what they answer is held against the published schemas by the tests.
The order of keywords is the order in which errors are listed: required, additionalProperties, properties.
"""

from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

SLUG = r"^[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$"
PRIORITIES = ("highest", "very-high", "high", "medium", "low", "very-low", "lowest")

_TIME: Schema = {"type": "string", "format": "date-time"}
_SLUG: Schema = {"type": "string", "pattern": SLUG}
_IDENTIFIER: Schema = {"type": "string", "minLength": 1, "maxLength": 38, "pattern": "^([a-zA-Z0-9-_]*)$"}
_PROJECT: Schema = {"type": "string", "minLength": 1, "maxLength": 500, "pattern": "^([a-zA-Z0-9._/-]*)$"}
_SCOPES: Schema = {"type": "array", "items": {"type": "string", "pattern": "^[ -~]*$"}}
_CONTENT_TYPE: Schema = {"type": "string", "maxLength": 255}
_LENGTH: Schema = {"type": "integer", "minimum": 0}


def _object(required: tuple[str, ...], properties: Schema, *, more: bool = False) -> Schema:
    schema: Schema = {"type": "object", "required": list(required)}
    if not more:
        schema["additionalProperties"] = False
    return schema | {"properties": properties}


def _one_of(*names: str) -> Schema:
    return {"type": "string", "enum": list(names)}


_METADATA = _object(
    ("name", "description", "owner", "source"),
    {
        "name": {"type": "string", "maxLength": 255},
        "description": {"type": "string", "maxLength": 32768},
        "owner": {"type": "string", "maxLength": 255},
        "source": {"type": "string", "maxLength": 4096, "pattern": "^(https?://|ssh://|git@)"},
    },
)

_CREATE_TASK = _object(
    ("created", "deadline", "payload", "metadata"),
    {
        "provisionerId": {"type": "string", "pattern": "^[a-zA-Z0-9-_]{1,38}$"},
        "workerType": {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,36}[a-z0-9])?$"},
        "taskQueueId": {"type": "string", "pattern": "^[a-zA-Z0-9-_]{1,38}/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$"},
        "schedulerId": _IDENTIFIER | {"default": "-"},
        "projectId": _PROJECT | {"default": "none"},
        "taskGroupId": _SLUG,
        "dependencies": {"type": "array", "items": _SLUG, "maxItems": 10000, "uniqueItems": True, "default": []},
        "requires": _one_of("all-completed", "all-resolved") | {"default": "all-completed"},
        "routes": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 249},
            "maxItems": 64,
            "uniqueItems": True,
            "default": [],
        },
        "priority": _one_of(*PRIORITIES) | {"default": "lowest"},
        "retries": {"type": "integer", "minimum": 0, "maximum": 49, "default": 5},
        "created": _TIME,
        "deadline": _TIME,
        "expires": _TIME,
        "scopes": _SCOPES | {"default": []},
        "payload": {"type": "object"},
        "metadata": _METADATA,
        "tags": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 4096}, "default": {}},
        "extra": {"type": "object", "default": {}},
    },
)

_CLAIM_WORK = _object(
    ("workerGroup", "workerId", "tasks"),
    {
        "workerGroup": _IDENTIFIER,
        "workerId": _IDENTIFIER,
        "tasks": {"type": "integer", "minimum": 1, "maximum": 32, "default": 1},
    },
)

_EXCEPTION = _object(
    ("reason",),
    {
        "reason": _one_of(
            "worker-shutdown", "malformed-payload", "resource-unavailable", "internal-error", "intermittent-task"
        )
    },
)


def _artifact(kind: str, required: tuple[str, ...], properties: Schema) -> Schema:
    return _object(("storageType", "expires", *required), {"storageType": _one_of(kind), "expires": _TIME} | properties)


_POST_ARTIFACT: Schema = {
    "oneOf": [
        _artifact("s3", ("contentType",), {"contentType": _CONTENT_TYPE, "contentLength": _LENGTH}),
        _artifact("object", ("contentType",), {"contentType": _CONTENT_TYPE, "contentLength": _LENGTH}),
        _artifact(
            "reference",
            ("url", "contentType"),
            {"url": {"type": "string", "format": "uri"}, "contentType": _CONTENT_TYPE},
        ),
        _artifact("link", ("artifact",), {"artifact": {"type": "string"}, "contentType": _CONTENT_TYPE}),
        _artifact(
            "error",
            ("reason", "message"),
            {
                "reason": _one_of(
                    "file-missing-on-worker",
                    "invalid-resource-on-worker",
                    "too-large-file-on-worker",
                    "file-not-readable-on-worker",
                ),
                "message": {"type": "string", "maxLength": 4096},
            },
        ),
    ]
}

_HASHES: Schema = _object(
    (),
    {
        "sha256": {"type": "string", "pattern": "^[a-z0-9]{64}$"},
        "sha512": {"type": "string", "pattern": "^[a-z0-9]{128}$"},
    },
    more=True,
)

_CREATE_UPLOAD = _object(
    ("projectId", "uploadId", "expires", "proposedUploadMethods"),
    {
        "projectId": _PROJECT,
        "uploadId": _SLUG,
        "expires": _TIME,
        "hashes": _HASHES,
        "proposedUploadMethods": _object(
            (),
            {
                "dataInline": _object(
                    ("contentType", "objectData"),
                    {"contentType": {"type": "string"}, "objectData": {"type": "string", "maxLength": 10926}},
                ),
                "putUrl": _object(
                    ("contentType", "contentLength"),
                    {"contentType": {"type": "string"}, "contentLength": {"type": "integer"}},
                ),
            },
        ),
    },
)

_POOL_ID: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9-_]{1,38}/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$"}
_REGISTRATION_SECRET: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{44}$"}
_WORKER: Schema = {"workerPoolId": _POOL_ID, "workerGroup": _IDENTIFIER, "workerId": _IDENTIFIER}


def _proof(**properties: Schema) -> Schema:
    return _object(tuple(properties), properties)


_STRING: Schema = {"type": "string"}
_REGISTER_WORKER = _object(
    ("workerPoolId", "providerId", "workerGroup", "workerId", "workerIdentityProof"),
    {
        **_WORKER,
        "providerId": _IDENTIFIER,
        "systemBootTime": _TIME,
        "workerIdentityProof": {
            "oneOf": [
                _proof(token=_STRING),
                _proof(staticSecret=_REGISTRATION_SECRET),
                _proof(document=_STRING, signature=_STRING),
                _proof(document=_STRING),
            ]
        },
    },
)

_TRUE: Schema = {"type": "boolean", "const": True}

SCHEMAS: dict[str, Schema] = {
    "queue/v1/create-task-request.json#": _CREATE_TASK,
    "queue/v1/claim-work-request.json#": _CLAIM_WORK,
    "queue/v1/task-exception-request.json#": _EXCEPTION,
    "queue/v1/post-artifact-request.json#": _POST_ARTIFACT,
    "queue/v1/finish-artifact-request.json#": _object(("uploadId",), {"uploadId": _SLUG}),
    "queue/v1/quarantine-worker-request.json#": _object(
        ("quarantineUntil",),
        {"quarantineUntil": _TIME, "quarantineInfo": {"type": "string", "minLength": 0, "maxLength": 4000}},
    ),
    "object/v1/create-upload-request.json#": _CREATE_UPLOAD,
    "object/v1/finish-upload-request.json#": _object(
        ("uploadId", "projectId"), {"uploadId": _SLUG, "projectId": _PROJECT, "hashes": _HASHES}
    ),
    "object/v1/download-object-request.json#": _object(
        ("acceptDownloadMethods",),
        {"acceptDownloadMethods": _object((), {"simple": _TRUE, "getUrl": _TRUE})},
    ),
    "secrets/v1/secret.json#": _object(("secret", "expires"), {"secret": {"type": "object"}, "expires": _TIME}),
    "worker-manager/v1/register-worker-request.json#": _REGISTER_WORKER,
    "worker-manager/v1/reregister-worker-request.json#": _object(
        ("workerPoolId", "workerGroup", "workerId", "secret"), {**_WORKER, "secret": _REGISTRATION_SECRET}
    ),
    "worker-manager/v1/report-worker-error-request.json#": _object(
        ("workerGroup", "workerId", "kind", "title", "description", "extra"),
        {
            "workerGroup": _IDENTIFIER,
            "workerId": _IDENTIFIER,
            "kind": {"type": "string", "maxLength": 128, "pattern": "[-a-z0-9]+"},
            "title": {"type": "string", "maxLength": 128},
            "description": {"type": "string", "maxLength": 10240},
            "extra": {"type": "object"},
        },
    ),
    "auth/v1/scopeset.json#": _object(("scopes",), {"scopes": _SCOPES | {"uniqueItems": True}}),
}
