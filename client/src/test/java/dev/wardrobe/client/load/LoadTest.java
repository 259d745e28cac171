package dev.wardrobe.client.load;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class LoadTest {
  private static LoadCase closed(int streams, AdapterMix mix) {
    return new LoadCase(
        "case",
        mix,
        streams,
        0,
        new Lengths(4, 9),
        0,
        new Lengths(2, 5),
        List.of(),
        0,
        new Lengths(1, 1),
        0);
  }

  private static AdapterMix base() {
    return AdapterMix.parse("none", "uniform");
  }

  private static Load load(LoadCase plan, Connection connection) {
    return new Load(plan, connection, null, 100, 1);
  }

  @Test
  void numberOfRequests_isAskedExactly_andEachTokenIsCounted() throws Exception {
    try (Answering server = new Answering();
        Connection connection = new Connection(server.target(), 2)) {
      LoadRun run =
          load(closed(3, AdapterMix.parse("warm,cold{0..3}", "round-robin")), connection)
              .run(0, 0, 50);
      assertThat(server.asked).hasSize(50);
      assertThat(server.mostRunning).hasValueBetween(1, 3);
      assertThat(run.load().requests()).isEqualTo(50);
      int tokens = server.asked.stream().mapToInt(GenerateRequest::getMaxTokens).sum();
      assertThat(run.load().tokens()).isEqualTo(tokens);
      assertThat(run.load().firstToken().size()).isEqualTo(50);
      assertThat(run.load().gaps().size()).isEqualTo(tokens - 50);
      assertThat(run.load().whole().size()).isEqualTo(50);
      assertThat(run.load().swapIn().size()).isEqualTo(40);
      assertThat(run.load().swapIn().millis(0.5)).isEqualTo(3);
      assertThat(run.load().errors()).isEmpty();
      assertThat(run.unfinished()).isZero();
      assertThat(run.tokensPerSecond()).isPositive().isFinite();
      assertThat(run.server().meanSequences()).isEqualTo(3);
      assertThat(run.server().p99StepMillis()).isEqualTo(1.5);
      assertThat(server.asked).allMatch(r -> r.getIgnoreEos() && r.getTemperature() == 0);
      assertThat(server.asked)
          .allMatch(r -> r.getTokenIdsCount() >= 4 && r.getTokenIdsCount() <= 9)
          .allMatch(r -> r.getTokenIdsList().stream().allMatch(id -> id >= 8 && id < 100));
    }
  }

  @Test
  void sameSeed_sameRequests_andNoPromptTwice() throws Exception {
    List<Set<List<Integer>>> prompts = new java.util.ArrayList<>();
    for (int i = 0; i < 2; i++) {
      try (Answering server = new Answering();
          Connection connection = new Connection(server.target(), 1)) {
        LoadCase plan =
            new LoadCase(
                "case",
                base(),
                4,
                0,
                new Lengths(12, 20),
                8,
                new Lengths(1, 1),
                List.of(),
                0,
                new Lengths(1, 1),
                0);
        load(plan, connection).run(0, 0, 40);
        assertThat(
                server.asked.stream()
                    .map(r -> r.getTokenIdsList().subList(0, 8))
                    .collect(Collectors.toSet()))
            .as("the shared beginning")
            .hasSize(1);
        prompts.add(
            server.asked.stream()
                .map(GenerateRequest::getTokenIdsList)
                .collect(Collectors.toCollection(HashSet::new)));
      }
    }
    assertThat(prompts.getFirst()).hasSize(40).isEqualTo(prompts.getLast());
  }

  @Test
  void nearSeeds_shareNoPrompt() throws Exception {
    Set<List<Integer>> prompts = new HashSet<>();
    for (int seed = 1; seed <= 4; seed++) {
      try (Answering server = new Answering();
          Connection connection = new Connection(server.target(), 1)) {
        new Load(closed(4, base()), connection, null, 100, seed).run(0, 0, 100);
        server.asked.forEach(request -> prompts.add(request.getTokenIdsList()));
      }
    }
    // All begin otherwise.
    assertThat(prompts).hasSize(400);
    assertThat(prompts.stream().map(prompt -> prompt.subList(0, 4)).distinct().count())
        .isGreaterThan(395);
  }

  @Test
  void time_endsARun_andRunningRequestsAreNoErrors() throws Exception {
    try (Answering server = new Answering();
        Connection connection = new Connection(server.target(), 1)) {
      LoadRun run = load(closed(4, base()), connection).run(0.05, 0.2, 0);
      assertThat(run.seconds()).isEqualTo(0.2);
      assertThat(run.load().requests()).isPositive();
      assertThat(run.load().tokens()).isPositive();
      assertThat(run.load().errors()).isEmpty();
      assertThat(run.unfinished()).isZero();
      // The first of each stream is cut, none of the others is.
      assertThat(server.asked.stream().filter(r -> r.getMaxTokens() < 2).count()).isLessThan(5);
    }
  }

  @Test
  void failures_areCountedByStatus() throws Exception {
    AtomicInteger number = new AtomicInteger();
    try (Answering server =
            new Answering() {
              @Override
              boolean before(GenerateRequest request, StreamObserver<GenerateEvent> answer) {
                int at = number.getAndIncrement();
                if (at % 3 == 0) {
                  return true;
                }
                running.decrementAndGet();
                answer.onError(
                    (at % 3 == 1 ? Status.RESOURCE_EXHAUSTED : Status.INTERNAL)
                        .withDescription("on purpose")
                        .asRuntimeException());
                return false;
              }
            };
        Connection connection = new Connection(server.target(), 1)) {
      LoadRun run = load(closed(1, base()), connection).run(0, 0, 9);
      assertThat(run.load().requests()).isEqualTo(3);
      assertThat(run.load().errors())
          .containsEntry("RESOURCE_EXHAUSTED", 3)
          .containsEntry("INTERNAL", 3)
          .hasSize(2);
      assertThat(run.load().firstError()).contains("on purpose");
      LoadResult result = new LoadResult(run.of());
      result.add(0, run);
      assertThat(result.errors()).isEqualTo(run.load().errors());
    }
  }

  /** A server that stands still must not look better by the requests that nobody sent meanwhile. */
  @Test
  void openLoop_countsFromWhenARequestWasDue() throws Exception {
    AtomicInteger number = new AtomicInteger();
    try (Answering server =
            new Answering() {
              @Override
              boolean before(GenerateRequest request, StreamObserver<GenerateEvent> answer) {
                if (number.getAndIncrement() == 0) {
                  synchronized (this) {
                    try {
                      Thread.sleep(400);
                    } catch (InterruptedException e) {
                      return false;
                    }
                  }
                } else {
                  synchronized (this) {
                    return true;
                  }
                }
                return true;
              }
            };
        Connection connection = new Connection(server.target(), 1)) {
      LoadCase plan =
          new LoadCase(
              "open",
              base(),
              1,
              200,
              new Lengths(4, 4),
              0,
              new Lengths(1, 1),
              List.of(),
              0,
              new Lengths(1, 1),
              0);
      LoadRun run = load(plan, connection).run(0, 0.3, 0);
      int requests = run.load().requests();
      assertThat(requests).isEqualTo(server.asked.size()).isGreaterThan(10);
      // All were due within 0.3 s of the run's beginning, and none was answered before 0.4 s.
      assertThat(run.load().firstToken().millis(0.01)).isGreaterThan(90);
      assertThat(run.load().firstToken().maxMillis()).isGreaterThan(399);
    }
  }

  @Test
  void guests_areMeasuredApart() throws Exception {
    try (Answering server = new Answering();
        Connection connection = new Connection(server.target(), 1)) {
      LoadCase plan =
          new LoadCase(
              "guests",
              base(),
              2,
              0,
              new Lengths(4, 4),
              0,
              new Lengths(2, 2),
              List.of("cold1", "cold2", "cold3"),
              0.02,
              new Lengths(3, 3),
              0);
      LoadRun run = load(plan, connection).run(0, 0.3, 0);
      assertThat(run.guests().requests()).isPositive();
      assertThat(run.guests().swapIn().size()).isEqualTo(run.guests().requests());
      assertThat(run.load().swapIn().size()).isZero();
      assertThat(server.asked)
          .allMatch(r -> r.getAdapter().isEmpty() ? r.getMaxTokens() < 3 : r.getMaxTokens() == 3);
      List<String> names =
          server.asked.stream()
              .map(GenerateRequest::getAdapter)
              .filter(name -> !name.isEmpty())
              .toList();
      assertThat(names.subList(0, 3)).containsExactlyInAnyOrder("cold1", "cold2", "cold3");
    }
  }

  @Test
  void touch_asksForEachOnce() throws Exception {
    try (Answering server = new Answering();
        Connection connection = new Connection(server.target(), 1)) {
      load(closed(2, base()), connection).touch(List.of("x", "y", "z"), 2);
      assertThat(server.asked.stream().map(GenerateRequest::getAdapter))
          .containsExactlyInAnyOrder("x", "y", "z");
    }
  }
}
