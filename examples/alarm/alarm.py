"""A clock that a guest sets: so and so many ticks later it raises its interrupt."""

from shardio import MutDevicePio

TICK_S = 0.01


class Alarm(MutDevicePio):
    """One port. Write: raise the interrupt after that many ticks of 10 ms. Read: how often it was raised."""

    pio_size = 1

    def __init__(self) -> None:
        self.raised = 0

    def attach(self, host):
        """The shard's event loop has the timers; the trigger is the line that the configuration names."""
        self.host = host

    def read(self, offset, size):
        return self.raised

    def write(self, offset, size, value):
        self.host.loop.call_later(value * TICK_S, self.ring)

    def ring(self):
        self.raised += 1
        self.host.trigger.trigger()
