"""Commands of the `warmline` program, one module each: `add_arguments(parser)` and `async run(args) -> int`.

They import the client and nothing of the server's inside.
"""
