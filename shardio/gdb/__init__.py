"""A debugger's way into a running machine: a stub that speaks GDB's remote serial protocol.

`rsp` frames and checks packets, `registers` describes the processor to the debugger, `target` stops the
machine's vCPUs and lets them go on, `breakpoints` are where they stop by themselves, `session` answers one
debugger's packets, `server` listens for it.
"""
