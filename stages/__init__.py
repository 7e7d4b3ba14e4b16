"""One step a file. Nothing in here knows of Ray: a stage maps a row (a dict) to rows."""
