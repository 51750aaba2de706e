"""What keeps this host from taking on tasks: looks at it before every claim. Nothing here mends anything."""
