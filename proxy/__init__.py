"""The registry proxy: pull-through cache, hosted repositories, and pushes forwarded to their upstream."""
