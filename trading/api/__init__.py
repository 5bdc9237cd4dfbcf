"""What `import trading as td` offers beside the names of the packages; see `docs/api.md`."""
