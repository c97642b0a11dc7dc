"""Runs untrusted code: a jailed process that knows nothing, and a referee that trusts it nothing.

    trainer --- pool.Workers ---> referee (runs the tests) --- calls, plain data ---> candidate
                                    |                                                   ^
                                    `--- starts, before any test arrives ---> fork server

The candidate's process never holds a test, an expected output or the channel on which verdicts
travel; it can only answer calls, with plain data, from inside a jail.
"""
