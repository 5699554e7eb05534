"""What is shipped beside the programs: completions, manual pages, packages."""
