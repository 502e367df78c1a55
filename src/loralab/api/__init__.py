"""The functions of `import loralab`: the commands of the command line, on files or on data in memory."""
