"""All services of one proxy, put together over a store and a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from cache.catalog import Catalog
from cache.leases import Leases
from cache.oci.transport import Transport
from cache.store import Store
from cache.upkeep.condemned import Condemned
from cache.upkeep.usage import Usage
from proxy.auth.access import Access
from proxy.auth.accounts import Accounts
from proxy.auth.authenticate import Authentication
from proxy.auth.users import Users
from proxy.cluster.fills import ClusterFills, FillSources, UpstreamAlone
from proxy.cluster.replicas import Replicas
from proxy.config import ProxyConfig
from proxy.drain import Drain
from proxy.hosting.hosted import HostedRepositories
from proxy.hosting.lookup import Lookup
from proxy.maintenance import Maintenance
from proxy.observe.metrics import Metrics
from proxy.reload import Configuration
from proxy.transfer.blobs import Blobs
from proxy.transfer.fills import Fills
from proxy.transfer.intake import Intakes
from proxy.transfer.manifest_pushes import ManifestPushes
from proxy.transfer.mounts import Mounts
from proxy.transfer.redirects import Redirects
from proxy.transfer.sightings import Sightings
from proxy.transfer.uploads import UploadSessions
from proxy.upstream.absences import Absences
from proxy.upstream.asking import Asking
from proxy.upstream.held import HeldManifests
from proxy.upstream.manifests import Manifests
from proxy.upstream.referrers import Referrers
from proxy.upstream.refetch import Refetch
from proxy.upstream.sources import Sources
from proxy.upstream.stale import Stale
from proxy.upstream.tags import UpstreamTags
from proxy.upstream.upstreams import Upstreams


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints call."""

    configuration: Configuration
    metrics: Metrics
    drain: Drain
    store: Store
    authentication: Authentication
    accounts: Accounts
    upstreams: Upstreams
    intakes: Intakes
    fills: Fills
    blobs: Blobs
    manifests: Manifests
    hosted: HostedRepositories
    uploads: UploadSessions
    replicas: Replicas
    mounts: Mounts
    lookup: Lookup
    catalog: Catalog
    tags: UpstreamTags
    referrers: Referrers
    sightings: Sightings
    manifest_pushes: ManifestPushes
    maintenance: Maintenance
    redirects: Redirects
    usage: Usage
    condemned: Condemned

    @property
    def config(self) -> ProxyConfig:
        """The configuration in force now."""
        return self.configuration.current

    async def change(self, config: ProxyConfig) -> tuple[str, ...]:
        """Puts another configuration in force for new requests, and returns the options that differ.

        Users, tokens and accounts are read again. What runs, and what is remembered of upstreams, stays. Raises
        ConfigError; then all is as it was.
        """
        users = await asyncio.to_thread(Users.load, config.users_file, config.tokens_file)
        readings = await self.accounts.read(config.upstreams.values())
        changed = self.configuration.change(config)
        self.authentication.change(users, config.rules)
        self.accounts.use(readings)
        self.metrics.know(config.upstreams)
        return changed

    async def open(self) -> None:
        """Begins what goes on in the background.

        Raises ConfigError for an account that cannot be used, CacheError when the replicas' key cannot be had.
        """
        await self.replicas.open()
        self.accounts.use(await self.accounts.read(self.config.upstreams.values()))
        self.uploads.open()
        self.maintenance.start()
        self.usage.start()
        await self.condemned.open()

    async def close(self) -> None:
        """Ends what goes on in the background."""
        await self.maintenance.close()
        await self.manifests.close()
        await self.accounts.close()
        await self.fills.close()
        await self.uploads.close()
        await self.replicas.close()
        await self.intakes.close()
        await self.usage.close()
        await self.condemned.close()


def make_services(config: ProxyConfig, store: Store, transport: Transport, environ: Mapping[str, str]) -> Services:
    """The services for a configuration; credential helpers are started with ``environ``.

    Raises ConfigError for files that it names and that cannot be used.
    """
    metrics = Metrics()
    metrics.know(config.upstreams)
    catalog = Catalog(store)
    upstreams = Upstreams(transport, config.patience, metrics)
    accounts = Accounts(environ)
    access = Access()
    intakes = Intakes(store, config.spool_dir)
    fills = Fills(intakes)
    replicas = Replicas(store, config.replica_url)
    ask = Asking(Sources(upstreams, access), access, Absences(), Stale(access, metrics))
    blobs = Blobs(store, catalog, ask, fills, _fill_sources(config, store, replicas, metrics))
    manifests = Manifests(HeldManifests(catalog, alone=replicas.alone), ask)
    condemned = Condemned(store, store.url)
    hosted = HostedRepositories(store, catalog, condemned, metrics)
    mounts = Mounts(store, blobs, hosted, upstreams, access, accounts)
    uploads = UploadSessions(replicas.upload_name)
    configuration = Configuration(config)
    refetch = Refetch(store, configuration, accounts, blobs, manifests)
    usage = Usage(store)
    metrics.watch(fetches=fills.__len__, uploads=uploads.__len__)
    return Services(
        configuration=configuration,
        metrics=metrics,
        drain=Drain(),
        store=store,
        authentication=Authentication(Users.load(config.users_file, config.tokens_file), config.rules),
        accounts=accounts,
        upstreams=upstreams,
        intakes=intakes,
        fills=fills,
        blobs=blobs,
        manifests=manifests,
        hosted=hosted,
        uploads=uploads,
        replicas=replicas,
        mounts=mounts,
        lookup=Lookup(blobs, manifests, hosted, usage),
        catalog=catalog,
        tags=UpstreamTags(upstreams),
        referrers=Referrers(catalog, hosted, manifests, upstreams),
        sightings=Sightings(),
        manifest_pushes=ManifestPushes(upstreams, manifests, blobs, mounts),
        maintenance=Maintenance(store, configuration, metrics, refetch.fetch),
        redirects=Redirects(store, configuration, metrics),
        usage=usage,
        condemned=condemned,
    )


def _fill_sources(config: ProxyConfig, store: Store, replicas: Replicas, metrics: Metrics) -> FillSources:
    if config.replica_url is None:
        return UpstreamAlone()
    return ClusterFills(store, Leases(store, config.replica_url), replicas, metrics)
