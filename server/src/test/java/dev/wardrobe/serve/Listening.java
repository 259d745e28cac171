package dev.wardrobe.serve;

import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** A listener that remembers every event, and that a test can hold back. */
final class Listening implements AnswerListener {
  final List<String> events = Collections.synchronizedList(new ArrayList<>());
  final List<GenerateEvent.Delta> deltas = Collections.synchronizedList(new ArrayList<>());
  final AnswerCollector collector;
  volatile boolean ready = true;

  /** Not ready any more after this many deltas. */
  volatile int patience = Integer.MAX_VALUE;

  Listening() {
    this(GenerateRequest.getDefaultInstance());
  }

  /** For as many answers as the request asks for. */
  Listening(GenerateRequest request) {
    collector = new AnswerCollector(request);
  }

  @Override
  public boolean ready() {
    return ready;
  }

  @Override
  public void started(GenerateEvent.Started started) {
    events.add("started");
    collector.started(started);
  }

  @Override
  public void delta(GenerateEvent.Delta delta) {
    events.add("delta");
    deltas.add(delta);
    collector.delta(delta);
    if (deltas.size() == patience) {
      ready = false;
    }
  }

  @Override
  public void finished(GenerateEvent.Finished finished) {
    events.add("finished");
    collector.finished(finished);
  }

  @Override
  public void failed(RequestException failure) {
    events.add("failed");
    collector.failed(failure);
  }

  GenerateResponse answer() throws Exception {
    return collector.result().get(60, TimeUnit.SECONDS);
  }

  RequestException failure() throws Exception {
    try {
      throw new AssertionError("expected a failure, got " + answer());
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RequestException failure) {
        return failure;
      }
      throw e;
    }
  }
}
