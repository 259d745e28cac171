package dev.wardrobe.telemetry;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.joran.JoranConfigurator;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.OutputStreamAppender;
import ch.qos.logback.core.encoder.Encoder;
import ch.qos.logback.core.read.ListAppender;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.telemetry.RequestReport.Answering;
import dev.wardrobe.telemetry.RequestReport.Operation;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.slf4j.LoggerFactory;

final class AccessLogTest {
  private static final String FORGED = "a\n2026-01-01 ERROR forged\u2028\u001b[31m\"x\\";

  private static RequestReport report() {
    return new RequestReport(
        FORGED,
        new Origin("http", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", null),
        Operation.GENERATE,
        "acme\r",
        List.of("returns@prod"),
        List.of(new Answering("returns@2", "sha256:aa")),
        "OK",
        "stop",
        null,
        7,
        2,
        5,
        10,
        1,
        1_000_000_000L,
        1_001_000_000L,
        1_002_000_000L,
        1_003_000_000L,
        1_010_000_000L,
        1_020_500_000L,
        1_000_000L,
        0);
  }

  private static ILoggingEvent event() {
    Logger logger = (Logger) LoggerFactory.getLogger(AccessLog.NAME);
    ListAppender<ILoggingEvent> events = new ListAppender<>();
    events.start();
    logger.addAppender(events);
    logger.setLevel(ch.qos.logback.classic.Level.INFO);
    logger.setAdditive(false);
    try {
      new AccessLog("base").accept(report());
    } finally {
      logger.detachAppender(events);
      logger.setAdditive(true);
      logger.setLevel(null);
    }
    assertThat(events.list).hasSize(1);
    return events.list.getFirst();
  }

  /** The encoder that a configuration of the product has. */
  private static String encode(String configuration, ILoggingEvent event) throws Exception {
    LoggerContext context = new LoggerContext();
    JoranConfigurator configurator = new JoranConfigurator();
    configurator.setContext(context);
    configurator.doConfigure(
        Objects.requireNonNull(AccessLogTest.class.getResource(configuration)));
    OutputStreamAppender<ILoggingEvent> appender =
        (OutputStreamAppender<ILoggingEvent>)
            context.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME).getAppender("stderr");
    Encoder<ILoggingEvent> encoder = appender.getEncoder();
    String line = new String(encoder.encode(event), StandardCharsets.UTF_8);
    context.stop();
    return line;
  }

  @Test
  void json_isOneObjectALine() throws Exception {
    String line = encode("/logback-json.xml", event());
    assertThat(line).endsWith("}\n");
    assertThat(line.chars().filter(c -> c == '\n').count()).isEqualTo(1);
    JsonNode json = new ObjectMapper().readTree(line);
    assertThat(json.get("logger").asText()).isEqualTo("dev.wardrobe.access");
    assertThat(json.get("request").asText()).startsWith("a\\u000a2026").contains("\\u001b");
    assertThat(json.get("tenant").asText()).isEqualTo("acme\\u000d");
    assertThat(json.get("adapter").asText()).isEqualTo("returns@2");
    assertThat(json.get("asked").asText()).isEqualTo("returns@prod");
    assertThat(json.get("digest").asText()).isEqualTo("sha256:aa");
    assertThat(json.get("prompt_tokens").asInt()).isEqualTo(7);
    assertThat(json.get("generated_tokens").isInt()).isTrue();
    assertThat(json.get("first_token_ms").asDouble()).isEqualTo(10);
    assertThat(json.get("total_ms").asDouble()).isEqualTo(20.5);
    assertThat(json.get("queue_ms").asDouble()).isEqualTo(1);
    assertThat(json.get("trace_id").asText()).isEqualTo("4bf92f3577b34da6a3ce929d0e0e4736");
    assertThat(json.get("finish").asText()).isEqualTo("stop");
  }

  @Test
  void text_isOneLine() throws Exception {
    String line = encode("/logback.xml", event());
    assertThat(line.chars().filter(c -> c < ' ' || c == '\u2028').count()).isEqualTo(1);
    assertThat(line)
        .endsWith("\n")
        .contains("INFO")
        .contains("access: request ")
        .contains("status=\"OK\"")
        .contains("total_ms=\"20.5\"");
  }
}
