package dev.wardrobe.telemetry;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnknownFieldSet;
import com.sun.net.httpserver.HttpServer;
import dev.wardrobe.telemetry.RequestReport.Answering;
import dev.wardrobe.telemetry.RequestReport.Operation;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Spans as a collector gets them. */
@Timeout(60)
final class TracesTest {
  private static final String TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
  private static final String CALLER = "00f067aa0ba902b7";

  private record Received(
      String name, String trace, String id, String parent, long start, long end, String raw) {}

  private static RequestReport report(String flags, String status) {
    long arrived = System.nanoTime() - 60_000_000;
    return new RequestReport(
        "r-1",
        new Origin("http", "00-" + TRACE + "-" + CALLER + "-" + flags, null),
        Operation.GENERATE,
        "acme",
        List.of("returns@prod"),
        List.of(new Answering("returns@2", "sha256:aa")),
        status,
        "stop",
        "a problem that quotes a text",
        7,
        2,
        5,
        10,
        1,
        arrived,
        arrived + 1_000_000,
        arrived + 2_000_000,
        arrived + 20_000_000,
        arrived + 30_000_000,
        arrived + 50_000_000,
        8_000_000,
        10_000_000);
  }

  /** What a collector got by the time all was sent. */
  private static List<Received> send(RequestReport... reports) throws Exception {
    List<byte[]> bodies = new CopyOnWriteArrayList<>();
    HttpServer collector =
        HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    collector.createContext(
        "/v1/traces",
        exchange -> {
          bodies.add(exchange.getRequestBody().readAllBytes());
          exchange.sendResponseHeaders(200, -1);
          exchange.close();
        });
    collector.start();
    try (Traces traces =
        Traces.to("http://127.0.0.1:" + collector.getAddress().getPort(), "base")) {
      for (RequestReport report : reports) {
        traces.accept(report);
      }
    } finally {
      collector.stop(0);
    }
    List<Received> spans = new ArrayList<>();
    for (byte[] body : bodies) {
      // ExportTraceServiceRequest, ResourceSpans, ScopeSpans, Span.
      for (ByteString resource : fields(ByteString.copyFrom(body), 1)) {
        for (ByteString scope : fields(resource, 2)) {
          for (ByteString span : fields(scope, 2)) {
            UnknownFieldSet set = UnknownFieldSet.parseFrom(span);
            spans.add(
                new Received(
                    fields(span, 5).getFirst().toStringUtf8(),
                    hex(span, 1),
                    hex(span, 2),
                    hex(span, 4),
                    set.getField(7).getFixed64List().getFirst(),
                    set.getField(8).getFixed64List().getFirst(),
                    span.toStringUtf8()));
          }
        }
      }
    }
    return spans;
  }

  private static List<ByteString> fields(ByteString message, int number) throws Exception {
    return UnknownFieldSet.parseFrom(message).getField(number).getLengthDelimitedList();
  }

  private static String hex(ByteString span, int field) throws Exception {
    List<ByteString> values = fields(span, field);
    return values.isEmpty() ? "" : HexFormat.of().formatHex(values.getFirst().toByteArray());
  }

  @Test
  void request_continuesTheCallersTrace_inParts() throws Exception {
    Map<String, Received> spans = new HashMap<>();
    send(report("01", "OK")).forEach(span -> spans.put(span.name(), span));
    assertThat(spans)
        .containsOnlyKeys(
            "text_completion returns@prod",
            "tokenize",
            "find adapter",
            "load adapter",
            "queue",
            "prefill",
            "decode");
    Received request = spans.get("text_completion returns@prod");
    assertThat(request.parent()).isEqualTo(CALLER);
    assertThat(request.end() - request.start()).isEqualTo(50_000_000);
    assertThat(request.raw())
        .contains("gen_ai.usage.output_tokens", "sha256:aa", "returns@2", "acme", "stop")
        .doesNotContain("quotes a text");
    for (Received span : spans.values()) {
      assertThat(span.trace()).isEqualTo(TRACE);
      if (span != request) {
        assertThat(span.parent()).isEqualTo(request.id());
      }
    }
    assertThat(spans.get("load adapter").end() - spans.get("load adapter").start())
        .isEqualTo(10_000_000);
    assertThat(spans.get("queue").end() - spans.get("queue").start()).isEqualTo(8_000_000);
    assertThat(spans.get("decode").end()).isEqualTo(request.end());
  }

  @Test
  void trace_thatIsNotSampled_isNotSent() throws Exception {
    assertThat(send(report("00", "OK"))).isEmpty();
  }

  @Test
  void failure_isMarked() throws Exception {
    Received request =
        send(report("01", "NOT_FOUND")).stream()
            .filter(span -> span.parent().equals(CALLER))
            .findFirst()
            .orElseThrow();
    assertThat(request.raw()).contains("error.type", "NOT_FOUND").doesNotContain("quotes");
  }

  @Test
  void endpoint_thatIsNone_isRefused() {
    assertThatThrownBy(() -> Traces.to("nowhere", "base")).hasMessageContaining("nowhere");
  }
}
