"""Wire protocols that partners' own systems share."""

from gateway.coalition.connector import Connector
from partners.protocols.rest_json import RestJson

PROTOCOLS: dict[str, type[Connector]] = {"rest_json": RestJson}
