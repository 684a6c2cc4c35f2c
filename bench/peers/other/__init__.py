"""The program that another interpreter runs. It needs the standard library and shardio's vocabulary, not its
compiled core, which is built for one interpreter.
"""
