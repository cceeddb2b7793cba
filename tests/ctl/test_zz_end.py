"""The last module: every verb has been run, and the broker stops when it is told to."""

from support import RUN, TIMEOUT, CtlTest, broker


class End(CtlTest):
    def test_a_every_verb_has_been_run(self):
        verbs = set(self.works("autocomplete").out.split())
        # Those of the next test.
        self.assertEqual(verbs - RUN - {"stop", "shutdown"}, set())

    def test_b_the_broker_stops(self):
        if not self.is_warren():
            for verb in ("stop", "shutdown"):
                self.fails(69, "is not Warren", verb)
            return
        if self.broker.process is None:
            self.skipTest("not ours to stop")
        self.works("stop", out="Stopping and halting node .* ...\n")
        self.assertEqual(self.broker.process.wait(TIMEOUT), 0)
        self.broker.process.stdout.close()
        self.broker.start()
        self.works("shutdown", out="Shutting down Warren node .* running at PID \\d+\nWarren node is no longer running\n")
        self.assertEqual(self.broker.process.wait(TIMEOUT), 0)


def tearDownModule():
    broker().stop()
