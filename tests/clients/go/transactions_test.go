package clients

import (
	"context"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// send publishes without waiting for a confirm.
func (s *session) send(channel *amqp.Channel, queue, body string) {
	s.Helper()
	s.must(channel.PublishWithContext(context.Background(), "", queue, false, false, text(body)))
}

func (s *session) transactionalChannel() *amqp.Channel {
	s.Helper()
	channel := s.channel()
	s.must(channel.Tx())
	return channel
}

func TestTransactionsPublishAtCommit(t *testing.T) {
	s := newSession(t)
	channel, queue := s.transactionalChannel(), s.queue("tx", nil)
	s.must(channel.Tx())
	s.send(channel, queue, "1")
	s.send(channel, queue, "2")
	equal(t, s.ready(queue), 0)
	s.must(channel.TxCommit())
	equal(t, s.drain(queue), []string{"1", "2"})

	s.send(channel, queue, "3")
	s.must(channel.TxRollback())
	s.send(channel, queue, "4")
	s.must(channel.TxCommit())
	equal(t, s.drain(queue), []string{"4"})
}

func TestTransactionsAcknowledgeAtCommit(t *testing.T) {
	s := newSession(t)
	queue := s.queue("tx", nil)
	s.fill(s.confirmChannel(), queue, "1", "2", "3")

	rolledBack := s.transactionalChannel()
	delivery := s.get(rolledBack, queue, false)
	s.must(delivery.Ack(false))
	s.must(rolledBack.TxRollback())
	s.must(delivery.Ack(false))
	s.must(rolledBack.Close())
	again := s.get(s.channel(), queue, false)
	equal(t, string(again.Body), "1")
	equal(t, again.Redelivered, true)
	s.must(again.Nack(false, true))

	committed := s.transactionalChannel()
	s.must(s.get(committed, queue, false).Ack(false))
	s.must(s.get(committed, queue, false).Reject(false))
	s.must(committed.TxCommit())
	s.must(committed.Close())
	equal(t, s.drain(queue), []string{"3"})
}

func TestTransactionsReturnAtCommit(t *testing.T) {
	s := newSession(t)
	channel := s.transactionalChannel()
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	key := s.name("nowhere")
	s.must(channel.PublishWithContext(context.Background(), "", key, true, false, text("lost")))
	s.must(channel.TxCommit())
	select {
	case returned := <-returns:
		equal(t, []any{returned.ReplyCode, returned.RoutingKey}, []any{uint16(312), key})
	default:
		t.Fatal("commit was answered before the message was returned")
	}
}

func TestATransactionIsRolledBackWhenItsChannelCloses(t *testing.T) {
	s := newSession(t)
	channel, queue := s.transactionalChannel(), s.queue("tx", nil)
	s.send(channel, queue, "lost")
	s.must(channel.Close())
	equal(t, s.drain(queue), []string{})
}

func TestTransactionErrors(t *testing.T) {
	s := newSession(t)
	plain := s.channel()
	s.refused(plain, 406, "PRECONDITION_FAILED - channel is not transactional", plain.TxCommit)
	plain = s.channel()
	s.refused(plain, 406, "PRECONDITION_FAILED - channel is not transactional", plain.TxRollback)
	confirming := s.confirmChannel()
	s.refused(confirming, 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", confirming.Tx)
	transactional := s.transactionalChannel()
	s.refused(transactional, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", func() error {
		return transactional.Confirm(false)
	})
	transactional = s.transactionalChannel()
	s.refused(transactional, 406, "PRECONDITION_FAILED - unknown delivery tag 1", func() error {
		return transactional.Ack(1, false)
	})
}
