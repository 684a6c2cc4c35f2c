"""The benchmarks behind `shardio bench`: how dispatch scales, against the floor of the machine and against
peers.

A figure is a paired-block ratio: the same two processes, pinned to two CPUs, alternate blocks of the bare
atomic ping-pong (the floor) and blocks of the work; the ratio is the median over the pairs. Ratios hold where
times do not: the floor of one machine moves several-fold within a minute.

`pair` and `far` are the two processes, `rows` the table of the data path, `overheads` what tracing and
metrics cost, `peers/` what others do, `scaling` vCPUs x shards x devices, `exits` exits of guests, `bound`
what machines can reach at most, `steps` counts instructions, `results` what is kept, `report` how it is
shown; the suites of `make bench` lie beside them.
"""
