package dev.wardrobe.client.cli;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import org.jline.reader.EndOfFileException;
import org.jline.reader.LineReader;
import org.jline.reader.LineReaderBuilder;
import org.jline.reader.UserInterruptException;
import org.jline.reader.impl.completer.StringsCompleter;
import org.jline.terminal.Terminal.Signal;
import org.jline.terminal.TerminalBuilder;
import org.jspecify.annotations.Nullable;

/** What is typed: with line editing and a history at a terminal, else line by line. */
final class ChatInput implements AutoCloseable {
  private static final List<String> COMMANDS =
      List.of("/adapter", "/base", "/adapters", "/system", "/reset", "/help", "/quit");

  private final @Nullable LineReader editor;
  private final @Nullable BufferedReader lines;

  private ChatInput(@Nullable LineReader editor, @Nullable BufferedReader lines) {
    this.editor = editor;
    this.lines = lines;
  }

  /**
   * Opens standard input.
   *
   * @param forgetful without a history
   * @param interrupt called for Ctrl-C while nothing is read
   */
  static ChatInput open(boolean interactive, boolean forgetful, Runnable interrupt)
      throws IOException {
    if (!interactive) {
      return new ChatInput(
          null, new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)));
    }
    var terminal = TerminalBuilder.builder().system(true).encoding(StandardCharsets.UTF_8).build();
    var _ = terminal.handle(Signal.INT, _ -> interrupt.run());
    LineReaderBuilder reader =
        LineReaderBuilder.builder()
            .terminal(terminal)
            .appName("wardrobe")
            .completer(new StringsCompleter(COMMANDS))
            // A ! is a ! to those who talk.
            .option(LineReader.Option.DISABLE_EVENT_EXPANSION, true);
    Path history = forgetful ? null : history();
    if (history != null) {
      reader.variable(LineReader.HISTORY_FILE, history);
    }
    return new ChatInput(reader.build(), null);
  }

  /** Where it is kept, for its owner's eyes; null if that cannot be. */
  private static @Nullable Path history() {
    String state = System.getenv("XDG_STATE_HOME");
    Path folder =
        state == null || state.isEmpty()
            ? Path.of(System.getProperty("user.home"), ".local", "state")
            : Path.of(state);
    try {
      Path file = Files.createDirectories(folder.resolve("wardrobe")).resolve("chat-history");
      if (!Files.exists(file)) {
        Files.createFile(file);
        Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rw-------"));
      }
      return file;
    } catch (IOException | UnsupportedOperationException e) {
      return null;
    }
  }

  boolean interactive() {
    return editor != null;
  }

  /** The next line; null at the end. */
  @Nullable String next(String prompt) throws IOException {
    if (editor == null) {
      return lines == null ? null : lines.readLine();
    }
    while (true) {
      try {
        return editor.readLine(prompt);
      } catch (UserInterruptException e) {
        // As in a shell: the line is dropped. On an empty one, who wants to leave is told how.
        if (e.getPartialLine().isEmpty()) {
          editor.getTerminal().writer().println("(Ctrl-D or /quit leaves)");
        }
      } catch (EndOfFileException e) {
        return null;
      }
    }
  }

  @Override
  public void close() throws IOException {
    if (editor != null) {
      editor.getTerminal().close();
    }
    if (lines != null) {
      lines.close();
    }
  }
}
