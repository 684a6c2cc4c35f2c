"""How a running machine is seen and told from other processes: its control socket.

`server` answers in the machine's process (`Machine.control`), `client` asks from another one (`shardio ls`,
`stop`, `pause`, `resume`), `messages` are what goes between them.
"""
