"""Counting cores without process affinity, and users without a name."""

import getpass
import os

from foretune.core.machine import count_cores, get_user_name, is_running


def test_count_cores_works_without_affinity(monkeypatch):
    assert 1 <= count_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert count_cores() == os.cpu_count()


def test_get_user_name_names_a_user_without_a_name(monkeypatch):
    for error in (KeyError("uid not found"), OSError("No username set")):

        def fail(error=error):
            raise error

        monkeypatch.setattr(getpass, "getuser", fail)
        assert get_user_name() == f"user {os.getuid()}"


def test_is_running_knows_this_process():
    assert is_running(os.getpid()) and not is_running(2**22 + 1)  # above Linux's limit
