"""A recorder of a run: what it keeps, the report and its advice, the page, the trace."""
