"""Every setting, once: name, type, default and what it does.

Names are those of the reference daemon where it has one (spec/http/06), so that its ``.env``
works here; our own begin with ``TIDEGATE_``. Only the environment is read. A blank value counts
as unset. ``docs/reference/settings.md`` is generated from this file.

    settings = Settings.load(os.environ)
    settings.server_port, settings.home.run
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tidegate.errors import SettingInvalid
from tidegate.setting_fields import Home, Secret, override, read, variable_of
from tidegate.setting_fields import setting as _setting

__all__ = ["Home", "Secret", "Settings", "all_settings", "variable_of"]


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """One reading of the environment. Immutable; made once per process by the entry files."""

    # --- data folder and runtime
    tidegate_home: str = _setting(
        "", "Data folder. `make run`: `.tidegate` in the checkout; else `$XDG_DATA_HOME/tidegate`."
    )
    debug: bool = _setting(False, "More is logged and shown; never another process model.")
    tidegate_supervised: bool = _setting(
        False, "Set by `tidegate up` for the roles it starts: logs go to its terminal."
    )

    # --- server
    server_host: str = _setting("0.0.0.0", "Address that api binds to.")  # noqa: S104
    server_port: int = _setting(5002, "Port that api binds to.", least=1)
    server_key: Secret = _setting(
        Secret(""), "`X-Api-Key` of all callers. Generated at first start when not given."
    )
    server_tz: str = _setting("UTC", "IANA zone of times in logs and JSON.")
    server_worker_amount: int = _setting(1, "api processes.", least=1)
    server_worker_class: str = _setting("gevent", "Only `gevent` is taken, all else refused.")
    server_worker_connections: int = _setting(
        10000,
        "Runs per api process at once; as many connections again, 1,000 at least, are kept for "
        "the requests of Dify that they lead to.",
        least=1,
    )
    gunicorn_timeout: int = _setting(200, "Seconds after which a hung api process is replaced.")
    tidegate_grace: float = _setting(
        30.0, "Seconds that running streams get when a role is told to stop.", least=0
    )
    tidegate_client_silence: float = _setting(60.0, "Seconds until a mute client is gone.", least=4)
    tidegate_reload: bool = _setting(False, "api reloads when its source changes (development).")
    tidegate_max_body: int = _setting(
        256 << 20, "Largest request body in bytes; uploads may have what their files may.", least=1
    )
    tidegate_body_timeout: float = _setting(60.0, "Seconds in which a body must arrive.", least=0.1)
    admin_api_enabled: bool = _setting(False, "Admin routes.")
    admin_api_key: Secret = _setting(Secret(""), "`X-Admin-Api-Key`; at least 10 characters.")
    tidegate_allow_published_keys: bool = _setting(
        False, "Accept the keys that Dify's sample files publish. Warned about at each start."
    )
    platform: str = _setting("local", "Runtime of plugins.", choices=("local", "serverless"))
    routine_pool_size: int = _setting(10000, "Total shown by the health route.", least=1)
    health_api_log_enabled: bool = _setting(True, "Log requests of /health/check.")
    log_level: str = _setting("INFO", "Log level.", choices=("DEBUG", "INFO", "WARN", "ERROR"))
    log_output_format: str = _setting("text", "`json` for one JSON object a line, else text.")
    log_file: str = _setting("", "Also append the log to this file.")
    prometheus_enabled: bool = _setting(True, "Serve /metrics/.")
    pprof_enabled: bool = _setting(False, "Understood, not built: /debug/pprof answers 404.")
    tidegate_live_sessions: int = _setting(
        200, "Calls at once over one live WebSocket connection.", least=1
    )

    # --- link
    tidegate_link_tcp: str = _setting(
        "", "host:port for a link over TCP beside the unix socket; off when blank."
    )

    tidegate_link_advertise: str = _setting(
        "",
        "host:port at which other hosts reach the link of this one, for plugins that are debugged "
        "here. Default: TIDEGATE_LINK_TCP, with the machine's name where it listens on every "
        "address; without it the unix socket, for hosts on the same machine.",
    )
    tidegate_link_host: str = _setting(
        "", "host:port of a host on another machine; default: the unix socket of this one."
    )

    # --- Dify
    dify_inner_api_url: str = _setting("", "Base URL of Dify's inner API.")
    dify_inner_api_key: Secret = _setting(Secret(""), "Dify's inner key; never generated.")
    dify_backwards_invocation_write_timeout: int = _setting(
        5000, "Milliseconds to send a back-call."
    )
    dify_backwards_invocation_read_timeout: int = _setting(
        240000, "Milliseconds of silence within its answer after which a back-call ends."
    )
    response_max_buffer_size: int = _setting(31457280, "Largest frame of Dify in bytes.")
    tidegate_backcalls: str = _setting(
        "",
        "Who answers back-calls: dify or self. Default: dify when its URL is set.",
        choices=("", "dify", "self"),
    )
    tidegate_backcalls_at_once: int = _setting(
        500, "Back-calls of one plugin process that run at once; more wait.", least=1
    )
    tidegate_backcall_wait: float = _setting(
        30.0, "Seconds that a back-call waits for its turn before it is refused.", least=0
    )
    tidegate_summary_model: str = _setting(
        "",
        "`author/name/provider/model` that summarizes where TIDEGATE_BACKCALLS=self. "
        "Default: the first language model with credentials, else the first that is installed.",
    )
    tidegate_credentials_key: Secret = _setting(
        Secret(""),
        "32 bytes in Base64 that encrypt stored credentials and endpoint secrets. Default: made "
        "at first use in `keys/credentials.key`; machines that share a database share it.",
    )

    # --- plugins
    plugin_working_path: str = _setting("cwd", "Extracted packages and environments.")
    plugin_installed_path: str = _setting("plugin", "Storage prefix of installed packages.")
    plugin_package_cache_path: str = _setting("plugin_packages", "Storage prefix of packages.")
    plugin_media_cache_path: str = _setting("assets", "Storage prefix of icons.")
    plugin_media_cache_size: int = _setting(1024, "Icons kept in memory.", least=1)
    plugin_asset_cache_size: int = _setting(256, "Extracted assets kept in memory.", least=1)
    plugin_max_execution_timeout: int = _setting(600, "Seconds that one call may take.", least=1)
    plugin_install_timeout: int = _setting(15, "Minutes that one installation may take.", least=1)
    plugin_local_launching_concurrent: int = _setting(2, "Plugins started at once.", least=1)
    plugin_endpoint_enabled: bool = _setting(True, "Serve webhooks at /e/.")
    tidegate_webhook_body: int = _setting(
        10 << 20, "Largest body of a request to /e/ in bytes.", least=1
    )
    plugin_runtime_max_buffer_size: int = _setting(
        32 << 20, "Longest line of a plugin in bytes.", least=1024
    )
    plugin_stdio_max_buffer_size: int = _setting(
        0, "Older name of PLUGIN_RUNTIME_MAX_BUFFER_SIZE; wins when given."
    )
    max_plugin_package_size: int = _setting(52428800, "Largest package in bytes.", least=1)
    max_bundle_package_size: int = _setting(629145600, "Largest bundle in bytes.", least=1)
    force_verifying_signature: bool = _setting(True, "Refuse packages without a valid signature.")
    third_party_signature_verification_enabled: bool = _setting(False, "Trust extra keys.")
    third_party_signature_verification_public_keys: tuple[str, ...] = _setting(
        (), "PEM files of the extra keys."
    )
    enforce_langgenius_plugin_signatures: bool = _setting(
        True, "Author langgenius needs the official signature."
    )
    persistence_storage_path: str = _setting("persistence", "Storage prefix of plugins' own data.")
    persistence_storage_max_size: int = _setting(104857600, "Bytes per plugin and tenant.")
    tidegate_output_schema: str = _setting(
        "warn", "What a violated output_schema does.", choices=("off", "warn", "enforce")
    )
    tidegate_output_schema_plugins: tuple[str, ...] = _setting(
        (), "Per plugin: `author/name=enforce`, comma-separated."
    )
    tidegate_call_memory: int = _setting(8 << 20, "Bytes of one call that wait in memory.", least=1)
    tidegate_call_spool: int = _setting(
        1 << 30, "Bytes of one call that wait on disk after that.", least=0
    )
    tidegate_call_idle: float = _setting(
        0.0, "Seconds without a chunk after which a call ends; 0 is off.", least=0
    )
    tidegate_keep_uploads: float = _setting(
        86400.0,
        "Seconds for which an uploaded package that nobody installs is kept; 0 keeps it for ever.",
        least=0,
    )
    tidegate_start_limit: float = _setting(
        60.0, "Seconds in which a plugin must become ready.", least=0.1
    )
    tidegate_stop_grace: float = _setting(
        5.0, "Seconds between SIGTERM and SIGKILL of a plugin.", least=0
    )
    tidegate_plugin_open_files: int = _setting(4096, "Open files per plugin process.", least=16)
    tidegate_plugin_memory: int = _setting(
        0,
        "Resident bytes that a plugin instance may have, its child processes included; over it "
        "the instance is stopped (`plugin_oom`). 0 is unlimited.",
        least=0,
    )
    tidegate_plugin_processes: int = _setting(
        256,
        "Processes that a plugin instance may have; over it the instance is stopped "
        "(`plugin_limit`). 0 is unlimited.",
        least=0,
    )
    tidegate_plugin_cpus: float = _setting(
        0.0,
        "Cores that a plugin instance may use, where a cgroup is delegated; 0 is unlimited.",
        least=0,
    )
    tidegate_isolation: str = _setting(
        "1",
        "What stands between plugins: 0 nothing, 1 limits, 2 a user of its own per plugin (host "
        "started as root), 3 a view of the file system of its own as well; auto takes the "
        "highest that can be had. A rung that cannot be had is refused at start.",
        choices=("auto", "0", "1", "2", "3"),
    )
    tidegate_plugin_uids: str = _setting(
        "200000-265535", "Range of user ids for plugins at rung 2 and 3: first-last."
    )
    tidegate_plugin_paths: tuple[str, ...] = _setting(
        (), "Files and folders that plugins and builds may read at rung 3 besides the system's."
    )
    tidegate_plugin_cgroup: str = _setting(
        "", "A cgroup v2 folder delegated to the host; each plugin instance gets one below it."
    )
    tidegate_instances_min: int = _setting(1, "Instances of a plugin while it is up.", least=1)
    tidegate_instances_max: int = _setting(
        1, "Instances of a plugin at most; more are started when calls wait.", least=1
    )
    tidegate_scale_wait: float = _setting(
        2.0, "Seconds that calls wait, or all instances are busy, before one more starts.", least=0
    )
    tidegate_scale_idle: float = _setting(
        60.0, "Seconds without a session after which an instance beyond the minimum ends.", least=0
    )
    tidegate_idle_stop: float = _setting(
        0.0, "Seconds without a session after which a plugin is stopped; 0 is never.", least=0
    )
    tidegate_pinned: tuple[str, ...] = _setting(
        (), "Plugins (author/name) that are never stopped for being idle."
    )
    tidegate_stopped_limit: float = _setting(
        15.0, "Seconds that a process may be stopped (SIGSTOP) while calls wait for it.", least=0.1
    )
    tidegate_stall_limit: float = _setting(
        60.0,
        "Seconds without any output while calls wait, after which new calls go to another "
        "instance and this one lives to the end of its calls; 0 is never.",
        least=0,
    )
    tidegate_burn_limit: float = _setting(
        20.0,
        "Seconds of full CPU use for calls that are over, after which a new instance takes the "
        "place of this one; 0 is never.",
        least=0,
    )
    tidegate_recycle_memory: int = _setting(
        0, "Resident bytes of an instance over which a new one takes its place; 0 is off.", least=0
    )
    tidegate_recycle_age: float = _setting(
        0.0, "Seconds of life after which a new instance takes its place; 0 is off.", least=0
    )
    tidegate_instance_sessions: int = _setting(
        10000, "Sessions at once per instance; 0 is unlimited.", least=0
    )
    tidegate_plugin_sessions: int = _setting(
        0, "Sessions at once per plugin; 0 is unlimited.", least=0
    )
    tidegate_tenant_sessions: int = _setting(
        0, "Sessions at once per tenant, over all its plugins; 0 is unlimited.", least=0
    )
    tidegate_admission_wait: float = _setting(
        5.0, "Seconds that a call waits for a free session before it is refused (429).", least=0
    )
    tidegate_admission_queue: int = _setting(
        10000, "Calls that wait per plugin; fairly shared between tenants.", least=1
    )
    tidegate_per_plugin: tuple[str, ...] = _setting(
        (),
        "Other values for single plugins: `author/name:INSTANCES_MAX=4:PLUGIN_MEMORY=536870912`, "
        "comma-separated; names are those of TIDEGATE_ settings without that word.",
    )
    tidegate_plugin_backlog: int = _setting(
        64 << 20, "Bytes that may wait for a plugin to read its standard input.", least=1024
    )
    tidegate_quarantine: float = _setting(
        300.0, "Seconds that a plugin stays stopped after five deaths in a row.", least=0
    )
    tidegate_plugin_env: tuple[str, ...] = _setting(
        (), "More variables of the host that plugins may see, by name."
    )

    # --- Python environments
    python_interpreter_path: str = _setting("", "Interpreter preferred for plugins.")
    uv_path: str = _setting("", "uv to use; default: the one that is installed with Tidegate.")
    python_env_init_timeout: int = _setting(
        120, "Seconds of silence after which a build is stopped.", least=1
    )
    python_compile_all_extra_args: str = _setting("", "More arguments of compileall.")
    pip_mirror_url: str = _setting("", "Package index used instead of the official one.")
    pip_mirror_auto_detect: bool = _setting(False, "Probe mirrors at start.")
    pip_mirror_candidates: tuple[str, ...] = _setting((), "Mirrors to probe.")
    pip_mirror_auto_detect_timeout: int = _setting(5, "Seconds of that probe.")
    pip_prefer_binary: bool = _setting(True, "Understood; uv prefers wheels by itself.")
    pip_verbose: bool = _setting(True, "uv tells more.")
    pip_extra_args: str = _setting("", "More arguments of uv.")
    plugin_ignore_uv_lock: bool = _setting(False, "Resolve anew although a lock is there.")
    http_proxy: str = _setting("", "Handed to uv and plugins (lower case is read too).")
    https_proxy: str = _setting("", "Handed to uv and plugins (lower case is read too).")
    no_proxy: str = _setting("", "Handed to uv and plugins (lower case is read too).")

    # --- debugging
    plugin_remote_installing_enabled: bool = _setting(True, "Debugging key and listener.")
    plugin_remote_installing_host: str = _setting("0.0.0.0", "Bind address.")  # noqa: S104
    plugin_remote_installing_port: int = _setting(5003, "Port.")
    plugin_remote_installing_max_conn: int = _setting(256, "Connections at once.")
    plugin_remote_installing_max_single_tenant_conn: int = _setting(5, "Per tenant.")

    # --- blobs
    plugin_storage_type: str = _setting("local", "Blob store: local or s3.")
    plugin_storage_local_root: str = _setting("", "Folder of the local store; default: the home.")
    plugin_storage_oss_bucket: str = _setting("", "Bucket.")
    s3_use_aws: bool = _setting(True, "AWS itself rather than a compatible store.")
    s3_use_path_style: bool = _setting(True, "Path-style addresses.")
    s3_use_aws_managed_iam: bool = _setting(False, "Credentials from the machine.")
    s3_endpoint: str = _setting("", "Address of a compatible store.")
    aws_access_key: Secret = _setting(Secret(""), "Access key.")
    aws_secret_key: Secret = _setting(Secret(""), "Secret key.")
    aws_region: str = _setting("", "Region.")

    # --- Redis and broker
    redis_host: str = _setting("", "Redis; none when blank.")
    redis_port: int = _setting(6379, "Port.")
    redis_username: str = _setting("", "User.")
    redis_password: Secret = _setting(Secret(""), "Password.")
    redis_db: int = _setting(0, "Database.")
    redis_key_prefix: str = _setting("plugin_daemon", "Prefix of all keys.")
    redis_use_ssl: bool = _setting(False, "TLS.")
    redis_ssl_cert_reqs: str = _setting(
        "",
        "CERT_NONE: not verified; CERT_REQUIRED: verified with REDIS_SSL_CA_CERTS; else verified.",
        choices=("", "CERT_NONE", "CERT_OPTIONAL", "CERT_REQUIRED"),
    )
    redis_ssl_ca_certs: str = _setting("", "PEM file.")
    redis_use_sentinel: bool = _setting(False, "Sentinel.")
    redis_sentinels: tuple[str, ...] = _setting((), "host:port, …")
    redis_sentinel_service_name: str = _setting("", "Service.")
    redis_sentinel_username: str = _setting("", "User.")
    redis_sentinel_password: Secret = _setting(Secret(""), "Password.")
    redis_sentinel_socket_timeout: float = _setting(0.0, "Seconds.")
    tidegate_redis_cluster: bool = _setting(
        False,
        "REDIS_HOST is a node of a cluster: for what is kept in Redis, not for jobs. They stay "
        "in the embedded broker unless CELERY_BROKER_URL names another one.",
    )
    celery_broker_url: Secret = _setting(
        Secret(""), "Broker. Default: Redis when there is one, else the embedded one."
    )
    celery_worker_amount: int = _setting(20, "Jobs at once per worker.", least=1)

    # --- database
    db_type: str = _setting(
        "", "sqlite, postgresql or pgbouncer. Default: sqlite when no DB_* is given."
    )
    db_username: str = _setting("", "User.")
    db_password: Secret = _setting(Secret(""), "Password.")
    db_host: str = _setting("", "Host.")
    db_port: int = _setting(5432, "Port.")
    db_database: str = _setting("", "Database.")
    db_default_database: str = _setting("postgres", "Database used to create the other one.")
    db_ssl_mode: str = _setting("disable", "sslmode of PostgreSQL.")
    db_max_idle_conns: int = _setting(10, "Connections kept.")
    db_max_open_conns: int = _setting(30, "Connections at once.", least=1)
    db_conn_max_lifetime: int = _setting(3600, "Seconds that a connection lives.")
    db_extras: str = _setting("", "options='…' of PostgreSQL.")
    db_charset: str = _setting("", "client_encoding.")

    # --- serverless
    dify_plugin_serverless_connector_url: str = _setting("", "Connector.")
    dify_plugin_serverless_connector_api_key: Secret = _setting(Secret(""), "Its key.")
    dify_plugin_serverless_connector_launch_timeout: int = _setting(240, "Seconds.")
    max_serverless_retry_times: int = _setting(3, "Tries.")
    max_serverless_request_bytes: int = _setting(5242880, "Bytes.")
    max_serverless_transaction_timeout: int = _setting(300, "Seconds.")

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """Read the environment; SettingInvalid names the first variable that does not fit."""
        values: dict[str, Any] = {}
        for item in dataclasses.fields(cls):
            name = variable_of(item)
            text = environ.get(name, "")
            if not text.strip() and name in _LOWER_CASE_TOO:
                text = environ.get(name.lower(), "")
            if text.strip():
                values[item.name] = read(name, item, text)
        settings = cls(**values)
        _check_together(settings, environ)
        return settings

    @property
    def home(self) -> Home:
        """The data folder. ``tidegate_home`` is filled in by the launcher (runtime/home)."""
        return Home(Path(self.tidegate_home or ".tidegate").absolute())

    @property
    def line_limit(self) -> int:
        """Longest line of a plugin in bytes, whichever of the two names set it."""
        return self.plugin_stdio_max_buffer_size or self.plugin_runtime_max_buffer_size

    @property
    def working_path(self) -> Path:
        """Where packages are extracted and environments live."""
        return self.home.below(self.plugin_working_path)

    @property
    def blob_root(self) -> Path:
        """Root of the local blob store."""
        return self.home.below(self.plugin_storage_local_root or ".")

    @property
    def database_kind(self) -> str:
        """``sqlite`` or ``postgresql``."""
        if self.db_type:
            return "sqlite" if self.db_type == "sqlite" else "postgresql"
        return "postgresql" if self.db_host else "sqlite"

    @property
    def backcalls(self) -> str:
        """``dify`` or ``self``."""
        return self.tidegate_backcalls or ("dify" if self.dify_inner_api_url else "self")

    def output_schema_mode(self, plugin_id: str) -> str:
        """``off``, ``warn`` or ``enforce`` for this plugin."""
        for entry in self.tidegate_output_schema_plugins:
            name, _, mode = entry.partition("=")
            if name == plugin_id:
                return mode
        return self.tidegate_output_schema

    def for_plugin(self, plugin_id: str) -> Settings:
        """These settings with what ``TIDEGATE_PER_PLUGIN`` says of one plugin."""
        values: dict[str, Any] = {}
        for entry in self.tidegate_per_plugin:
            name, pairs = override(entry, dataclasses.fields(self))
            if name == plugin_id:
                values |= pairs
        return dataclasses.replace(self, **values) if values else self


_LOWER_CASE_TOO = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
_DB_TYPES = {"sqlite", "postgresql", "pgbouncer"}


def all_settings() -> list[tuple[str, str, Any, str]]:
    """(variable, type, default, doc) of each setting in order: what the reference page shows."""
    return [
        (variable_of(item), str(item.type), item.default, str(item.metadata["doc"]))
        for item in dataclasses.fields(Settings)
    ]


def _check_together(settings: Settings, environ: Mapping[str, str]) -> None:
    if settings.db_type and settings.db_type not in _DB_TYPES:
        raise SettingInvalid(
            f"DB_TYPE={settings.db_type} is not built: take sqlite, postgresql or pgbouncer"
        )
    if settings.plugin_storage_type not in {"local", "local_file", "s3", "aws_s3", "aws-s3"}:
        raise SettingInvalid(
            f"PLUGIN_STORAGE_TYPE={settings.plugin_storage_type} is not built: take local or s3"
        )
    if settings.admin_api_enabled and len(settings.admin_api_key.reveal()) < 10:
        raise SettingInvalid("ADMIN_API_KEY needs at least 10 characters when ADMIN_API_ENABLED")
    if settings.tidegate_redis_cluster and (settings.redis_use_sentinel or settings.redis_db):
        raise SettingInvalid(
            "TIDEGATE_REDIS_CLUSTER: a cluster has no REDIS_USE_SENTINEL and only REDIS_DB=0"
        )
    if settings.database_kind == "postgresql":
        for name in ("DB_HOST", "DB_USERNAME", "DB_DATABASE"):
            if not environ.get(name, "").strip():
                raise SettingInvalid(f"{name} is needed for PostgreSQL (or set DB_TYPE=sqlite)")
    for entry in settings.tidegate_per_plugin:
        override(entry, dataclasses.fields(Settings))
    for entry in settings.tidegate_output_schema_plugins:
        if entry.partition("=")[2] not in {"off", "warn", "enforce"}:
            raise SettingInvalid(
                f"TIDEGATE_OUTPUT_SCHEMA_PLUGINS takes author/name=off|warn|enforce, not {entry!r}"
            )
