"""Generated from protos/warmline/v1 by `make proto`."""
