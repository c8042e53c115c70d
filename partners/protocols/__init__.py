"""Wire protocols that partners' own systems share."""

from collections.abc import Callable

from gateway.coalition.connector import Connector
from partners.protocols.rest_json import RestJson

PROTOCOLS: dict[str, Callable[[str], Connector]] = {"rest_json": RestJson}
