"""Runs untrusted code in a jailed process without secrets; a trusted referee runs the tests.

    trainer --- pool.Workers ---> referee (runs the tests) --- calls, data ----------> candidate
                                    |                                                   ^
                                    `--- starts, before any test arrives ---> fork server

The candidate's process never holds a test, an expected output or the channel of the verdicts; from
inside its jail it can only answer calls with data. The tests run in a fork of the referee; the
kernel kills the fork if an answer of the candidate makes the tests endless.
"""
