package dev.wardrobe.client.cli;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import picocli.CommandLine;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;

/** What can be typed: commands below commands, their options, and what those take. */
final class CommandTree {
  /** What a value is. */
  enum Value {
    NONE,
    WORDS,
    FILE,
    ADAPTER,
    OTHER
  }

  /**
   * An option, or what a command takes besides options.
   *
   * @param names empty for the latter
   * @param words the values there are, for {@link Value#WORDS}
   */
  record Argument(List<String> names, Value value, List<String> words, String description) {
    Argument {
      names = List.copyOf(names);
      words = List.copyOf(words);
    }
  }

  private final Map<String, CommandTree> commands = new TreeMap<>();
  private final Map<String, Argument> options = new TreeMap<>();
  private final List<Argument> positions = new ArrayList<>();
  private String description = "";

  Map<String, CommandTree> commands() {
    return commands;
  }

  List<Argument> options() {
    return List.copyOf(options.values());
  }

  List<Argument> positions() {
    return List.copyOf(positions);
  }

  String description() {
    return description;
  }

  /** Adds what this takes; what is there already stays. */
  void add(CommandLine command) {
    var spec = command.getCommandSpec();
    if (description.isEmpty() && spec.usageMessage().description().length > 0) {
      description = sentence(spec.usageMessage().description());
    }
    for (OptionSpec option : spec.options()) {
      if (!option.hidden()) {
        Argument argument = argument(Arrays.asList(option.names()), option);
        var _ = options.putIfAbsent(option.longestName(), argument);
      }
    }
    for (PositionalParamSpec position : spec.positionalParameters()) {
      positions.add(argument(List.of(), position));
    }
    command
        .getSubcommands()
        .forEach(
            (name, sub) -> {
              if (!sub.getCommandSpec().usageMessage().hidden()) {
                commands.computeIfAbsent(name, _ -> new CommandTree()).add(sub);
              }
            });
  }

  private static Argument argument(List<String> names, ArgSpec argument) {
    List<String> words = new ArrayList<>();
    Class<?> type =
        argument.auxiliaryTypes().length > 0 ? argument.auxiliaryTypes()[0] : String.class;
    Value value = Value.OTHER;
    if (argument instanceof OptionSpec && argument.arity().max() == 0) {
      value = Value.NONE;
    } else if (names.contains("--adapter")
        || argument.paramLabel().equals("REFERENCE")
        || argument.paramLabel().startsWith("NAME@")) {
      value = Value.ADAPTER;
    } else if (type.isEnum()) {
      value = Value.WORDS;
      for (Object each : type.getEnumConstants()) {
        words.add(each.toString().toLowerCase(Locale.ROOT));
      }
    } else if (argument.completionCandidates() != null) {
      value = Value.WORDS;
      argument.completionCandidates().forEach(words::add);
    } else if (type == Path.class
        || argument.paramLabel().contains("FILE")
        || argument.paramLabel().contains("DIR")) {
      value = Value.FILE;
    }
    return new Argument(names, value, words, sentence(argument.description()));
  }

  /** The first sentence, without what picocli or a shell would read into it. */
  private static String sentence(String[] lines) {
    String text = String.join(" ", lines).replaceAll("[\\s'\"`$\\\\]+", " ").strip();
    int end = text.indexOf(". ");
    text = end < 0 ? text : text.substring(0, end);
    return text.endsWith(".") ? text.substring(0, text.length() - 1) : text;
  }
}
