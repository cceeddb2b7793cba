"""prometheus.return_per_object_metrics, for those who scrape /metrics alone."""

from warren import Case


class PerObject(Case):
    OPTIONS = ("--set", "prometheus.return_per_object_metrics=true")

    def test_metrics_has_a_series_for_each_queue(self) -> None:
        self.put(f"queues/{self.vhost}/a-queue")
        text = self.broker.client.send("GET", "/metrics").body
        self.assertRegex(text, r'(?m)^rabbitmq_queue_messages_ready\{.*queue="a-queue"\} 0$')


class Aggregated(Case):
    def test_metrics_has_the_sums_alone(self) -> None:
        self.put(f"queues/{self.vhost}/a-queue")
        text = self.broker.client.send("GET", "/metrics").body
        self.assertRegex(text, r"(?m)^rabbitmq_queue_messages_ready 0$")
        self.assertNotIn("a-queue", text)
