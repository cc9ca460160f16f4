"""Real servers on loopback for the tests, and ways to break them.

Each server has a data folder and a port of its own, and a password that is easy to recognise where it must
not appear (it starts with ``planted-``). Nothing outlives the test run, however that ends.
"""
