"""The report: one offline HTML page about a run."""
