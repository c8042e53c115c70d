"""`python -m partners.simulator --port PORT --file FILE` runs the simulated airline."""

import argparse
from pathlib import Path

import uvicorn

from partners.simulator.app import create_airline

parser = argparse.ArgumentParser(prog="python -m partners.simulator", description="A simulated airline.")
parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
parser.add_argument("--file", type=Path, required=True, help="where its accounts are kept (SQLite)")
arguments = parser.parse_args()
uvicorn.run(create_airline(arguments.file), host="127.0.0.1", port=arguments.port, log_level="warning")
