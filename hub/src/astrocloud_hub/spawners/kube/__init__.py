"""People's servers as pods.

`objects` builds what is sent to the cluster; `starts`, `ends`, `room` and `refusals` read what it tells: pure functions
on plain JSON. `api`, `watching` and `nodes` talk to it, and `spawner` puts them together.
"""
