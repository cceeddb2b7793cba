package warren.clients;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.RpcServer;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.StringRpcServer;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.Test;

/** Requests and replies, with the direct reply-to pseudo queue and with the client's own classes. */
class RpcTest extends BrokerTest {
    private static final String REPLY_TO = "amq.rabbitmq.reply-to";

    @Test
    void directReplyTo() throws Exception {
        String requests = sharedQueue(Map.of());
        Collector replies = consume(channel, REPLY_TO, true, Map.of());
        publish("", requests, request("correlation-1"), "question");

        Channel server = newConnection().createChannel();
        Collector serving = consume(server, requests, true, Map.of());
        Delivery received = serving.next();
        String address = received.getProperties().getReplyTo();
        assertTrue(address.startsWith(REPLY_TO + "."), address);
        assertEquals("correlation-1", received.getProperties().getCorrelationId());
        assertEquals(1, server.queueDeclarePassive(address).getConsumerCount());
        server.basicPublish("", address, new AMQP.BasicProperties.Builder().correlationId("correlation-1").build(),
                bytes("answer"));

        Delivery reply = replies.next();
        assertEquals("answer", Collector.text(reply));
        assertEquals("correlation-1", reply.getProperties().getCorrelationId());
        assertEquals("", reply.getEnvelope().getExchange());
        assertEquals(false, reply.getEnvelope().isRedeliver());
    }

    @Test
    void repliesToAGoneRequesterAreDropped() throws Exception {
        String requests = exclusiveQueue(Map.of());
        Channel requester = connection.createChannel();
        consume(requester, REPLY_TO, true, Map.of());
        requester.basicPublish("", requests, request("1"), bytes("question"));
        String address = awaitMessage(requests).getProps().getReplyTo();
        requester.close();
        publishConfirmed("", address, "too late");
        assertChannelError(404, "NOT_FOUND - no queue '" + address + "' in vhost '" + ENDPOINT.virtualHost() + "'",
                50, 10, asking -> asking.queueDeclarePassive(address));
    }

    @Test
    void directReplyToRules() throws Exception {
        String requests = exclusiveQueue(Map.of());
        assertChannelError(406, "PRECONDITION_FAILED - fast reply consumer does not exist", 60, 40,
                asking -> asking.basicPublish("", requests, request("1"), bytes("question")));
        assertChannelError(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", 60, 20,
                asking -> consume(asking, REPLY_TO));
        assertChannelError(406, "PRECONDITION_FAILED - reply consumer already set", 60, 20, asking -> {
            consume(asking, REPLY_TO, true, Map.of());
            consume(asking, REPLY_TO, true, Map.of());
        });
    }

    @Test
    void clientAndServerClassesOverDirectReplyTo() throws Exception {
        String requests = sharedQueue(Map.of());
        Serving server = Serving.start(newConnection().createChannel(), requests);
        RpcClient client = new RpcClient(
                new RpcClientParams().channel(channel).exchange("").routingKey(requests).timeout(10_000));
        for (int call = 0; call < 50; call++) {
            assertEquals("REQUEST " + call, client.stringCall("request " + call));
        }
        assertArrayEquals(bytes("BYTES"), client.primitiveCall(bytes("bytes")));
        client.close();
        server.stop();
    }

    @Test
    void clientAndServerClassesOverAReplyQueue() throws Exception {
        String requests = sharedQueue(Map.of());
        String replies = exclusiveQueue(Map.of());
        Serving server = Serving.start(newConnection().createChannel(), requests);
        RpcClient client = new RpcClient(new RpcClientParams()
                .channel(channel).exchange("").routingKey(requests).replyTo(replies).timeout(10_000));
        assertEquals("FIRST", client.stringCall("first"));
        assertEquals("SECOND", client.stringCall("second"));
        client.close();
        server.stop();
    }

    @Test
    void callsWithoutAServer() throws Exception {
        String requests = exclusiveQueue(Map.of());
        RpcClient waiting = new RpcClient(
                new RpcClientParams().channel(channel).exchange("").routingKey(requests).timeout(200));
        assertThrows(TimeoutException.class, () -> waiting.stringCall("anybody?"));
        waiting.close();
        RpcClient mandatory = new RpcClient(new RpcClientParams().channel(connection.createChannel()).exchange("")
                .routingKey(uniqueName("nobody")).timeout(10_000).useMandatory());
        assertThrows(com.rabbitmq.client.UnroutableRpcRequestException.class, () -> mandatory.stringCall("anybody?"));
        // The client learns its consumer's tag on another thread than the one that hears of the return.
        DefaultConsumer replies = (DefaultConsumer) mandatory.getConsumer();
        awaitTrue("the client knows its consumer tag", () -> replies.getConsumerTag() != null);
        mandatory.close();
    }

    private static AMQP.BasicProperties request(String correlationId) {
        return new AMQP.BasicProperties.Builder().replyTo(REPLY_TO).correlationId(correlationId).build();
    }

    /** An RpcServer in a thread of its own that answers in capitals. */
    private record Serving(RpcServer server, Thread thread) {
        static Serving start(Channel channel, String queue) throws IOException {
            RpcServer server = new StringRpcServer(channel, queue) {
                @Override
                public String handleStringCall(String request, AMQP.BasicProperties replyProperties) {
                    return request.toUpperCase(java.util.Locale.ROOT);
                }
            };
            Thread thread = new Thread(() -> {
                try {
                    server.mainloop();
                } catch (IOException | ShutdownSignalException failed) {
                    throw new IllegalStateException(failed);
                }
            }, "rpc-server");
            thread.start();
            return new Serving(server, thread);
        }

        void stop() throws Exception {
            // The loop waits for the next request until its channel goes; close() would only cancel its consumer.
            server.getChannel().close();
            thread.join(DEADLINE.toMillis());
            assertEquals(Thread.State.TERMINATED, thread.getState());
        }
    }
}
