package dev.wardrobe;

import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.joran.JoranConfigurator;
import ch.qos.logback.core.joran.spi.JoranException;
import java.util.Objects;
import org.slf4j.LoggerFactory;
import org.slf4j.bridge.SLF4JBridgeHandler;

/** How log lines are written; as it is before anybody says: as text. */
enum LogFormat {
  /** A line for people, fields as {@code name="value"}. */
  TEXT,
  /** An object of JSON a line. */
  JSON;

  private static final String JSON_CONFIGURATION = "/logback-json.xml";

  /**
   * The format of that name.
   *
   * @throws StartException if there is none
   */
  static LogFormat of(String name) throws StartException {
    return switch (name) {
      case "text" -> TEXT;
      case "json" -> JSON;
      default ->
          throw StartException.usage(
              "--log-format: expected text or json, got '%s'".formatted(name));
    };
  }

  /**
   * Has lines written so from now on, those of libraries that log by java.util.logging, as
   * OpenTelemetry does, among them.
   */
  void apply() {
    SLF4JBridgeHandler.removeHandlersForRootLogger();
    SLF4JBridgeHandler.install();
    if (this == TEXT || !(LoggerFactory.getILoggerFactory() instanceof LoggerContext context)) {
      return;
    }
    JoranConfigurator configurator = new JoranConfigurator();
    configurator.setContext(context);
    context.reset();
    try {
      configurator.doConfigure(
          Objects.requireNonNull(LogFormat.class.getResource(JSON_CONFIGURATION)));
    } catch (JoranException e) {
      throw new IllegalStateException(JSON_CONFIGURATION + " is not as it should be", e);
    }
  }
}
