"""The benchmark: what Warmline adds, beside the direct path, a bare relay and real peers, in one run on one machine."""
