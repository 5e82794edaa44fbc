"""Composition of the api role: every room that a request passes, made once per process."""

from __future__ import annotations

import gc

from tidegate.api.application import Application, Load
from tidegate.api.health_routes import health_routes
from tidegate.api.live import LiveDoor
from tidegate.api.own_routes import own_routes, sharing_for
from tidegate.api.streaming import OpenStreams
from tidegate.backcalls.endpoint_secrets import open_endpoint_secrets
from tidegate.calls import Calls, RuleBook
from tidegate.doors.dify import Dispatcher, dify_routes
from tidegate.doors.dify.administration import admin_routes
from tidegate.doors.dify.debugging import debugging_routes
from tidegate.doors.dify.transactions import transaction_routes
from tidegate.doors.openapi import OpenApiDoor
from tidegate.doors.route_table import RouteTable
from tidegate.doors.services import Services
from tidegate.installs import Catalogue, Installer, LinkedHost, StoredPackages
from tidegate.jobs import Sender
from tidegate.runtime.drain import Drain
from tidegate.settings import Settings
from tidegate.storage import Database
from tidegate.storage.blobs import open_blobs
from tidegate.telemetry.sharing import Sharing


def build_application(settings: Settings, drain: Drain) -> Application:
    """The WSGI application. Connects to nothing yet: rooms do so when they are first used.

    ``drain`` tells the open streams that the process stops.
    """
    services = services_for(settings)
    sharing = sharing_for(settings, services.calls)
    # A process that only lists the routes (`make docs`) has not prepared its data folder.
    if settings.prometheus_enabled and settings.home.run.is_dir():
        sharing.start()
    application = application_for(services, drain, sharing)
    # What is loaded now lives as long as the process: a collection that walks it all would stop
    # every stream for a tenth of a second.
    gc.collect()
    gc.freeze()
    return application


def services_for(settings: Settings) -> Services:
    """The rooms below the doors, wired together."""
    database = Database(settings)
    blobs = open_blobs(settings)
    catalogue = Catalogue(database)
    calls = Calls(settings, on_notice=catalogue.heard)
    sender = Sender(settings)
    sender.prepare()
    installer = Installer(
        settings, database, blobs, sender, catalogue=catalogue, host=LinkedHost(calls)
    )
    return Services(
        settings=settings,
        database=database,
        blobs=blobs,
        catalogue=catalogue,
        installer=installer,
        calls=calls,
        rules=RuleBook(settings),
        stored=StoredPackages(settings, blobs),
        secrets=open_endpoint_secrets(settings),
    )


def application_for(
    services: Services, drain: Drain, sharing: Sharing | None = None
) -> Application:
    """The application on rooms that exist already; for tests that bring their own.

    Without ``sharing`` it shows its siblings' metrics and writes none for them.
    """
    settings = services.settings
    sharing = sharing or sharing_for(settings, services.calls)
    load = Load()
    streams = OpenStreams(drain, settings.tidegate_client_silence)
    dispatcher = Dispatcher(services)
    live = LiveDoor(settings, dispatcher, streams, drain)
    openapi = OpenApiDoor()
    table = openapi.table = RouteTable(
        [
            openapi.route(),
            *own_routes(settings, services.calls, load, live, sharing),
            *health_routes(services, drain),
            *dify_routes(services, dispatcher),
            *debugging_routes(services),
            *transaction_routes(services),
            *admin_routes(services),
        ]
    )
    services.calls.start()
    return Application(table, settings, streams, load)
