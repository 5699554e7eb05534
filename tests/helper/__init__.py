"""Homes with real daemons and real stores, and waiting for conditions instead of sleeping."""

from tests.helper.home import Home, a_home
from tests.helper.ports import free_port
from tests.helper.rpc import Rpc, RpcError
from tests.helper.store import Store, program
from tests.helper.waiting import DEADLINE, eventually, wait_until

__all__ = ["DEADLINE", "Home", "Rpc", "RpcError", "Store", "a_home", "eventually", "free_port", "program", "wait_until"]
