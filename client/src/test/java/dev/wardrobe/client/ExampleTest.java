package dev.wardrobe.client;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.RunningServer;
import dev.wardrobe.v1.GenerateRequest;
import io.grpc.Status;
import io.grpc.stub.AbstractStub;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.PrintStream;
import java.io.StringWriter;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import javax.tools.JavaCompiler;
import javax.tools.ToolProvider;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The example of the package's documentation, compiled and run as it is printed. */
@Timeout(120)
final class ExampleTest {
  private static final Path DOCUMENTATION =
      Path.of(
          System.getProperty("wardrobe.root"),
          "client/src/main/java/dev/wardrobe/client/package-info.java");

  @TempDir private Path folder;

  private static String example() throws Exception {
    List<String> lines = Files.readAllLines(DOCUMENTATION);
    int first = lines.indexOf(" * {@snippet :") + 1;
    assertThat(first).isPositive();
    return lines.subList(first, lines.size()).stream()
        .takeWhile(line -> !line.equals(" * }"))
        .map(line -> line.substring(2))
        .collect(Collectors.joining("\n"));
  }

  /** Where the classes are that the example names, however this test was started. */
  private static String classPath() throws Exception {
    List<String> places = new ArrayList<>();
    for (Class<?> type :
        List.of(
            WardrobeClient.class,
            GenerateRequest.class,
            com.google.protobuf.Message.class,
            AbstractStub.class,
            Status.class,
            Nullable.class)) {
      places.add(
          Path.of(type.getProtectionDomain().getCodeSource().getLocation().toURI()).toString());
    }
    return String.join(File.pathSeparator, places);
  }

  @Test
  void example_compilesAndAnswers() throws Exception {
    String example = example();
    // The snippet's own end is a line of its own, as the statement's is.
    String statement = example + "\n}";
    assertThat(statement.lines().count()).isBetween(8L, 12L);
    try (RunningServer server =
        new RunningServer(
            Files.createDirectory(folder.resolve("root")),
            folder.resolve("store"),
            "--adapter",
            "pirate=" + RunningServer.adapter("pirate"))) {
      assertThat(statement).contains("\"127.0.0.1:7070\"");
      Path source =
          Files.writeString(
              folder.resolve("Example.java"),
              """
              import dev.wardrobe.client.*;
              import dev.wardrobe.v1.*;

              public final class Example {
                public static void run() {
              %s
                }
              }
              """
                  .formatted(statement.replace("127.0.0.1:7070", server.target())));
      JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
      StringWriter said = new StringWriter();
      try (var files = compiler.getStandardFileManager(null, null, StandardCharsets.UTF_8)) {
        boolean compiled =
            compiler
                .getTask(
                    said,
                    files,
                    null,
                    List.of("-proc:none", "-d", folder.toString(), "-cp", classPath()),
                    null,
                    files.getJavaFileObjects(source))
                .call();
        assertThat(compiled).as("%s", said).isTrue();
      }
      ByteArrayOutputStream printed = new ByteArrayOutputStream();
      PrintStream before = System.out;
      try (URLClassLoader loader =
          new URLClassLoader(new URL[] {folder.toUri().toURL()}, getClass().getClassLoader())) {
        System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
        loader.loadClass("Example").getMethod("run").invoke(null);
      } finally {
        System.setOut(before);
      }
      assertThat(printed.toString(StandardCharsets.UTF_8)).hasSizeGreaterThan(10);
    }
  }
}
