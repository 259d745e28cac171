package dev.wardrobe.trainer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Stack;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.IParameterPreprocessor;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.ParameterException;

/**
 * A command's options in a YAML file: its keys are the options' names without dashes. What the
 * command line says itself is left out of the file.
 */
final class OptionsFile implements IParameterPreprocessor {
  /** The option that names the file. */
  static final String OPTION = "--config";

  private static final long LARGEST = 1 << 20;

  private static final YAMLMapper MAPPER =
      YAMLMapper.builder().enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION).build();

  @Override
  @SuppressWarnings("JdkObsolete") // picocli's own type
  public boolean preprocess(
      Stack<String> args,
      CommandSpec command,
      @Nullable ArgSpec argument,
      Map<String, Object> info) {
    // A stack's top is the argument that comes next.
    List<String> typed = List.copyOf(args).reversed();
    checkOnce(typed, command);
    Path file = file(typed);
    if (file != null) {
      for (String each : arguments(file, command, typed).reversed()) {
        args.push(each);
      }
    }
    return false;
  }

  /** A second time would make picocli begin the option's group anew, and forget what was in it. */
  private static void checkOnce(List<String> typed, CommandSpec command) {
    for (OptionSpec option : command.options()) {
      int times = 0;
      for (String argument : typed) {
        times += isTyped(option, List.of(argument)) ? 1 : 0;
      }
      if (times > 1 && !option.isMultiValue()) {
        throw wrong(
            command,
            "%s: expected once, got %d times; drop all but one"
                .formatted(option.longestName(), times));
      }
    }
  }

  private static @Nullable Path file(List<String> typed) {
    Path file = null;
    for (int i = 0; i < typed.size(); i++) {
      String name = null;
      if (typed.get(i).startsWith(OPTION + "=")) {
        name = typed.get(i).substring(OPTION.length() + 1);
      } else if (typed.get(i).equals(OPTION) && i + 1 < typed.size()) {
        name = typed.get(i + 1);
      }
      file = name == null ? file : Path.of(name);
    }
    return file;
  }

  private static ParameterException wrong(CommandSpec command, String message) {
    return new ParameterException(command.commandLine(), message);
  }

  private static List<String> arguments(Path file, CommandSpec command, List<String> typed) {
    List<String> arguments = new ArrayList<>();
    for (Map.Entry<String, JsonNode> entry : read(file, command).properties()) {
      OptionSpec option = command.findOption("--" + entry.getKey());
      if (option == null || option.usageHelp() || option.versionHelp()) {
        throw wrong(
            command,
            "%s: expected the options' names without dashes, such as batch-size, got '%s'"
                .formatted(file, entry.getKey()));
      }
      if (option.longestName().equals(OPTION)) {
        throw wrong(command, "%s: a file cannot name another one".formatted(file));
      }
      if (!isTyped(option, typed)) {
        add(file, command, option, entry.getValue(), arguments);
      }
    }
    return arguments;
  }

  private static boolean isTyped(OptionSpec option, List<String> typed) {
    for (String name : option.names()) {
      for (String argument : typed) {
        if (argument.equals(name) || argument.startsWith(name + "=")) {
          return true;
        }
      }
    }
    return false;
  }

  private static void add(
      Path file, CommandSpec command, OptionSpec option, JsonNode value, List<String> arguments) {
    String name = option.longestName();
    if (value.isNull()) {
      return;
    }
    if (value.isObject() && option.typeInfo().isMap()) {
      for (Map.Entry<String, JsonNode> entry : value.properties()) {
        arguments.add(
            name + "=" + entry.getKey() + "=" + text(file, command, name, entry.getValue()));
      }
    } else if (value.isArray() && option.isMultiValue() && !option.typeInfo().isMap()) {
      for (JsonNode each : value) {
        arguments.add(name + "=" + text(file, command, name, each));
      }
    } else if (option.arity().max() == 0 && !value.isBoolean()) {
      throw wrong(
          command,
          "%s: %s: expected true or false, got %s".formatted(file, name.substring(2), value));
    } else {
      arguments.add(name + "=" + text(file, command, name, value));
    }
  }

  private static String text(Path file, CommandSpec command, String name, JsonNode value) {
    if (!value.isValueNode() || value.isNull()) {
      throw wrong(
          command,
          "%s: %s: expected a number or a text, got %s".formatted(file, name.substring(2), value));
    }
    return value.asText();
  }

  private static JsonNode read(Path file, CommandSpec command) {
    try {
      if (Files.size(file) > LARGEST) {
        throw wrong(command, "%s: expected at most %,d bytes".formatted(file, LARGEST));
      }
      JsonNode json = MAPPER.readTree(Files.readAllBytes(file));
      if (json.isMissingNode() || json.isNull()) {
        return MAPPER.createObjectNode();
      }
      if (!json.isObject()) {
        throw wrong(command, "%s: expected lines of NAME: VALUE, got %s".formatted(file, json));
      }
      return json;
    } catch (JsonProcessingException e) {
      throw wrong(
          command,
          "%s: expected YAML, got: %s"
              .formatted(file, e.getOriginalMessage().strip().replaceAll("\\s*\\R\\s*", " ")));
    } catch (FileSystemException e) {
      throw wrong(command, dev.wardrobe.StartException.explain(e));
    } catch (IOException e) {
      throw wrong(command, "%s: cannot be read: %s".formatted(file, e.getMessage()));
    }
  }
}
