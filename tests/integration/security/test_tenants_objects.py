"""What a tenant may do with its own objects, and on its own sockets."""

import pytest

from tests.support.worlds.tenants import MODEL, Tenants

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestOwnObjects:
    """A key can use what it or its team created; other keys cannot."""

    async def test_conversations_and_their_items(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        item = {"type": "message", "role": "user", "content": "hi"}
        made = await a.call("POST", "/conversations", json={"items": [item]})
        path = f"/conversations/{made.json()['id']}"
        assert (await a.ask(1, conversation=made.json()["id"])).is_success
        listed = (await a.call("GET", f"{path}/items", 1)).json()["data"]
        assert len(listed) >= 2
        for one in listed:
            assert (await a.call("GET", f"{path}/items/{one['id']}")).is_success
            reference = [{"type": "item_reference", "id": one["id"]}]
            refused = await b.ask(input=reference)
            assert refused.status_code == 404
            assert refused.json()["error"]["param"] == "input"
        assert (await b.call("GET", f"{path}/items")).status_code == 404
        assert (await b.call("DELETE", path)).status_code == 404
        assert (await a.call("DELETE", path, 1)).is_success

    async def test_files_and_vector_stores(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        form = {"file": ("a.txt", b"secret")}
        made = await a.call("POST", "/files", files=form, data={"purpose": "user_data"})
        assert made.status_code == 200, made.text
        file_id = made.json()["id"]
        stored = await a.call("POST", "/vector_stores", 1, json={"file_ids": [file_id]})
        assert stored.status_code == 200, stored.text
        store_id = stored.json()["id"]
        for path in (
            f"/files/{file_id}",
            f"/files/{file_id}/content",
            f"/vector_stores/{store_id}",
            f"/vector_stores/{store_id}/files",
        ):
            assert (await a.call("GET", path, 1)).status_code == 200
            assert (await b.call("GET", path, 1)).status_code == 404
        tool = {"type": "file_search", "vector_store_ids": [store_id]}
        assert (await a.ask(tools=[tool])).is_success
        assert (await b.ask(tools=[tool])).status_code == 404

    async def test_containers(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(team_id="shared"), await tenants.mint()
        mate = await tenants.mint(team_id="shared")
        made = await a.call("POST", "/containers", json={"name": "box"})
        container_id = made.json()["id"]
        tool = {"type": "code_interpreter", "container": container_id}
        assert (await mate.ask(1, tools=[tool])).is_success
        assert (await b.ask(1, tools=[tool])).status_code == 404
        assert (
            await b.call("DELETE", f"/containers/{container_id}")
        ).status_code == 404

    async def test_items_sent_back_with_their_content(self, tenants: Tenants) -> None:
        """As the Agents SDK does; also with ids that a client invents."""
        a = await tenants.mint()
        first = (await a.ask()).json()
        history = [*first["output"], {"role": "user", "content": "more"}]
        assert (await a.ask(1, input=history)).is_success
        invented = {
            "type": "message",
            "role": "assistant",
            "id": "msg_mine",
            "content": [{"type": "output_text", "text": "x"}],
        }
        assert (await a.ask(1, input=[invented])).is_success

    async def test_an_id_stays_its_minters_whoever_repeats_it(
        self, tenants: Tenants
    ) -> None:
        """Clients choose the ids of items they add; a list then returns them."""
        a, b = await tenants.mint(), await tenants.mint()
        item_id = (await a.ask()).json()["output"][-1]["id"]
        conversation = (await b.call("POST", "/conversations", json={})).json()["id"]
        path = f"/conversations/{conversation}/items"
        theirs = {"type": "message", "role": "user", "content": "x", "id": item_id}
        newer = [
            {"type": "message", "role": "user", "content": str(n), "id": f"msg_{n}"}
            for n in range(9)
        ]
        await b.call("POST", path, json={"items": [theirs, *newer]})
        listed = await b.call("GET", f"{path}?limit=100", 1)
        assert listed.status_code == 200
        reference = [{"type": "item_reference", "id": item_id}]
        assert (await a.ask(input=reference)).status_code == 200
        assert (await b.ask(input=reference)).status_code == 404

    async def test_sessions_named_alike_share_nothing(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        headers = {"x-session-id": "same"}
        body = {"model": MODEL, "input": "hi"}
        reasons = [
            (await key.call("POST", "/responses", json=body, headers=headers)).headers[
                "x-proxy-reason"
            ]
            for key in (a, b, a)
        ]
        assert reasons == [
            "weighted_least_connections",
            "weighted_least_connections",
            "session_affinity",
        ]

    async def test_answers_come_in_codings_that_can_be_opened(
        self, tenants: Tenants
    ) -> None:
        a = await tenants.mint()
        body = {"model": MODEL, "input": "hi"}
        headers = {"accept-encoding": "br;q=1.0, gzip;q=0.5, *"}
        await a.call("POST", "/responses", json=body, headers=headers)
        newest = tenants.fleet.simulator.state.journal.shown(None, bodies=False)
        sent = {k.lower(): v for k, v in newest["entries"][-1]["headers"]}
        assert sent["accept-encoding"] == "gzip;q=0.5"


class TestSockets:
    async def test_a_conversation_on_one_socket(self, tenants: Tenants) -> None:
        """Also by ids that only this socket knows (`store: false`)."""
        a, b = await tenants.mint(), await tenants.mint()
        async with a.socket() as socket:
            first = (await a.turn(socket, store=False))["response"]["id"]
            second = await a.turn(socket, store=False, previous_response_id=first)
            assert second["type"] == "response.completed"
        stored = await a.response()
        async with a.socket(1) as socket:
            event = await a.turn(socket, previous_response_id=stored)
            assert event["type"] == "response.completed"
            made = event["response"]["id"]
        assert (await a.call("GET", f"/responses/{made}")).status_code == 200
        assert (await b.call("GET", f"/responses/{made}")).status_code == 404
        async with b.socket() as socket:
            event = await b.turn(socket, previous_response_id=made)
            assert event == {
                "type": "error",
                "status": 400,
                "error": {
                    "message": f"Previous response with id '{made}' not found.",
                    "type": "invalid_request_error",
                    "param": "previous_response_id",
                    "code": "previous_response_not_found",
                },
            }
            assert (await b.turn(socket))["type"] == "response.completed"

    async def test_the_cause_is_in_sql(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        response_id = await a.response()
        async with b.socket() as socket:
            await b.turn(socket)
            await b.turn(socket, previous_response_id=response_id)
        await tenants.stored()
        assert tenants.rows(
            "SELECT status_code, outcome, error_code FROM requests "
            f"WHERE proxy_key_id = '{b.id}' ORDER BY created_at"
        ) == [(200, "completed", None), (400, "failed", "foreign_id")]
