"""The Taskcluster client adapter: claims, reclaims, reports, artifacts at the Queue."""
