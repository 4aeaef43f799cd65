"""The study: one compute module a chapter, and the tables that its notebooks read."""
