package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Return;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Test;

/** Channels in transaction mode. */
class TransactionTest extends BrokerTest {

    @Test
    void commitPublishes() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Channel transacted = connection.createChannel();
        transacted.txSelect();
        transacted.txSelect();
        transacted.basicPublish("", queue, NO_PROPERTIES, bytes("0"));
        transacted.basicPublish("", queue, NO_PROPERTIES, bytes("1"));
        // A synchronous call on the same channel: the publishes have arrived, and are held.
        assertEquals(0, transacted.messageCount(queue));
        transacted.txCommit();
        assertEquals(List.of("0", "1"), drain(queue));
    }

    @Test
    void rollbackDropsPublishesAndRestoresAcknowledgements() throws Exception {
        String queue = exclusiveQueue(Map.of());
        publishConfirmed("", queue, "kept");
        Channel transacted = connection.createChannel();
        transacted.txSelect();
        long tag = transacted.basicGet(queue, false).getEnvelope().getDeliveryTag();
        transacted.basicAck(tag, false);
        transacted.basicPublish("", queue, NO_PROPERTIES, bytes("dropped"));
        transacted.txRollback();
        transacted.basicAck(tag, false);
        transacted.txRollback();
        transacted.close();
        assertEquals(List.of("kept"), drain(queue));
    }

    @Test
    void commitAcknowledges() throws Exception {
        String queue = exclusiveQueue(Map.of());
        publishConfirmed("", queue, "0", "1");
        Channel transacted = connection.createChannel();
        transacted.txSelect();
        transacted.basicAck(transacted.basicGet(queue, false).getEnvelope().getDeliveryTag(), false);
        transacted.basicReject(transacted.basicGet(queue, false).getEnvelope().getDeliveryTag(), false);
        transacted.txCommit();
        transacted.close();
        assertNull(channel.basicGet(queue, true));
    }

    @Test
    void returnsComeWithTheCommit() throws Exception {
        List<String> returned = new CopyOnWriteArrayList<>();
        channel.addReturnListener((Return message) -> returned.add(message.getReplyText()));
        channel.txSelect();
        channel.basicPublish("", uniqueName("nobody"), true, NO_PROPERTIES, bytes("unroutable"));
        channel.exchangeDeclarePassive("amq.direct");
        assertEquals(List.of(), returned);
        channel.txCommit();
        assertEquals(List.of("NO_ROUTE"), returned);
    }

    @Test
    void modesDoNotMix() throws Exception {
        assertChannelError(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", 90, 10, failing -> {
            failing.confirmSelect();
            failing.txSelect();
        });
        assertChannelError(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", 85, 10, failing -> {
            failing.txSelect();
            failing.confirmSelect();
        });
        assertChannelError(406, "PRECONDITION_FAILED - channel is not transactional", 90, 20, Channel::txCommit);
        assertChannelError(406, "PRECONDITION_FAILED - channel is not transactional", 90, 30, Channel::txRollback);
    }
}
