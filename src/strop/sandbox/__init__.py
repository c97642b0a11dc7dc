"""Runs untrusted code: a jailed process that knows nothing, and a referee that trusts it nothing.

    trainer --- pool.Workers ---> referee (runs the tests) --- calls, data ----------> candidate
                                    |                                                   ^
                                    `--- starts, before any test arrives ---> fork server

The candidate's process never holds a test, an expected output or the channel on which verdicts
travel; it can only answer calls, with data, from inside a jail. The tests run in a fork of the
referee, which the kernel ends when what a candidate returned makes their work endless.
"""
