package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MathMode;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.Method;

/**
 * CPU backends at a forced vector width. The width is a constant of the class, as the compiler
 * needs it, so each width has a class loader with its own copy of the package.
 */
public final class Widths {
  private static final String PACKAGE = Widths.class.getPackageName() + ".";

  private Widths() {}

  /** A backend of {@code bits} wide vectors; wider than the machine's are emulated. */
  public static Backend backend(int bits, int threads) {
    return backend(bits, threads, MathMode.EXACT);
  }

  /** As {@link #backend(int, int)}, in a mode. */
  static Backend backend(int bits, int threads, MathMode mode) {
    String before = System.getProperty(Vectors.BITS_PROPERTY);
    System.setProperty(Vectors.BITS_PROPERTY, Integer.toString(bits));
    try {
      return (Backend)
          new Copies()
              .loadClass(CpuBackend.class.getName())
              .getConstructor(int.class, MathMode.class)
              .newInstance(threads, mode);
    } catch (ReflectiveOperationException e) {
      throw new LinkageError("width", e);
    } finally {
      if (before == null) {
        System.clearProperty(Vectors.BITS_PROPERTY);
      } else {
        System.setProperty(Vectors.BITS_PROPERTY, before);
      }
    }
  }

  static Lab lab(Backend backend, long seed) {
    return new Lab(backend, Widths::liveBytes, seed);
  }

  private static long liveBytes(Backend backend) {
    try {
      Method method = backend.getClass().getMethod("liveBytes");
      return (long) method.invoke(backend);
    } catch (ReflectiveOperationException e) {
      throw new LinkageError("width", e);
    }
  }

  /** Defines this package's classes anew, and leaves all others to the tests' loader. */
  private static final class Copies extends ClassLoader {
    Copies() {
      super(Widths.class.getClassLoader());
    }

    @Override
    protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
      if (!name.startsWith(PACKAGE)) {
        return super.loadClass(name, resolve);
      }
      synchronized (getClassLoadingLock(name)) {
        Class<?> loaded = findLoadedClass(name);
        return loaded == null ? define(name) : loaded;
      }
    }

    private Class<?> define(String name) throws ClassNotFoundException {
      try (InputStream in = getResourceAsStream(name.replace('.', '/') + ".class")) {
        if (in == null) {
          throw new ClassNotFoundException(name);
        }
        byte[] bytes = in.readAllBytes();
        return defineClass(name, bytes, 0, bytes.length);
      } catch (IOException e) {
        throw new ClassNotFoundException(name, e);
      }
    }
  }
}
