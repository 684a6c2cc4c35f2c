"""The software CPU: guests of 16 and 32 bits on hosts without /dev/kvm, by Unicorn (an optional dependency).

`library` finds it, `record` is what the VMM shares with its vCPU workers, `process` is what a worker runs.
"""
