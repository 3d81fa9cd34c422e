"""An etcd that is not there, that asks for certificates, or for a user."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from api_service.etcd.cluster import open_cluster
from api_service.etcd.store import EtcdStore
from api_service.etcd.target import EtcdTarget
from api_service.store.store import Put
from common.errors import Unavailable
from tests.fixtures.etcd import etcd_cluster
from tests.fixtures.stores import patiently


async def test_etcd_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with etcd_cluster(tmp_path) as gone:
        endpoints = gone.endpoints
    with pytest.raises(Unavailable) as caught:
        async with open_cluster(EtcdTarget(endpoints=endpoints)):
            raise AssertionError("it is there")
    assert caught.value.reason == "STORE_UNREACHABLE"
    assert caught.value.retry_after is not None


async def test_tls_with_certificates_of_both(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, issuer in (("server", authority), ("client", authority), ("stranger", stranger)):
        made = issuer.issue_cert("127.0.0.1", common_name=name)
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = ["--cert-file", f"{tmp_path}/server.pem", "--key-file", f"{tmp_path}/server.key"]
    asked = ["--client-cert-auth", "--trusted-ca-file", f"{tmp_path}/ca.pem"]
    with etcd_cluster(tmp_path / "etcd", arguments=[*files, *asked]) as secure:
        target = EtcdTarget(
            endpoints=secure.endpoints,
            authority=tmp_path / "ca.pem",
            certificate=tmp_path / "client.pem",
            key=tmp_path / "client.key",
        )
        async with open_cluster(target) as cluster:
            await cluster.store.commit(Put(key="k", value=b""))
        wrong = replace(target, certificate=tmp_path / "stranger.pem", key=tmp_path / "stranger.key")
        with pytest.raises(Unavailable):
            async with open_cluster(wrong):
                raise AssertionError("a stranger was let in")


async def test_users_with_a_role_for_the_prefix_and_tokens_that_end(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    with etcd_cluster(tmp_path / "etcd") as guarded:
        for command in (
            "user add root:root", "role add slipway", "role grant-permission --prefix=true slipway readwrite /slipway/",
            "user add api:secret", "user grant-role api slipway", "auth enable",
        ):  # fmt: skip
            guarded.control(*command.split())
        target = EtcdTarget(endpoints=guarded.endpoints, user="api", password_file=password)
        async with open_cluster(target) as cluster:
            changes = cluster.store.watch("", after=await cluster.store.revision())
            await cluster.store.commit(Put(key="before", value=b""))
            cluster.store._client._token = "ended.1"
            await patiently(cluster.store.commit(Put(key="after", value=b"")))
            [member] = guarded.members
            member.kill()  # and with it every token
            await asyncio.to_thread(guarded.start)
            await patiently(_until_committed(cluster.store, Put(key="restarted", value=b"")))
            keys = [(await patiently(anext(changes))).key for _ in range(3)]
            assert keys == ["before", "after", "restarted"]
        password.write_text("wrong")
        with pytest.raises(Unavailable) as caught:
            async with open_cluster(target):
                raise AssertionError("it was let in")
        assert caught.value.reason == "STORE_REFUSES"
        password.write_text("secret")
        with pytest.raises(Unavailable, match="permission denied"):
            async with open_cluster(replace(target, prefix="/other/")):
                raise AssertionError("it was let in")


async def _until_committed(store: EtcdStore, put: Put) -> None:
    while True:
        try:
            await store.commit(put)
        except Unavailable:
            continue
        return
