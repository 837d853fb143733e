"""Where a build's files come from: context, named contexts, and what ADD fetches."""
