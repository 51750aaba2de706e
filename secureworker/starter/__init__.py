"""What `secureworker init` writes for a host: a first policy, settings, keys and units. Nothing of it is used later."""
