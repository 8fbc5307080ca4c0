import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Calls the main methods of Kafka's tools one after the other within one process, since the start of a Java costs more
 * than what most of them do. Asked on its standard input: how many strings, then the class, its arguments and its
 * input; answers with the status and all that was printed.
 */
public class Tools {
    /** In place of the end of the process. */
    private static class Ended extends Error {
        final int status;

        Ended(int status) {
            super("exit " + status, null, false, false);
            this.status = status;
        }
    }

    private static final List<Runnable> hooks = new ArrayList<>();
    private static Integer status;

    public static void main(String[] none) throws Exception {
        DataInputStream asked = new DataInputStream(System.in);
        DataOutputStream answers = new DataOutputStream(System.out);
        Exit.setExitProcedure((code, message) -> ended(code));
        Exit.setHaltProcedure((code, message) -> ended(code));
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        while (true) {
            String[] words = new String[asked.readInt()];
            for (int i = 0; i < words.length; i++) {
                words[i] = new String(asked.readNBytes(asked.readInt()), "UTF-8");
            }
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            int code = run(words, new PrintStream(said, true, "UTF-8"));
            answers.writeInt(code);
            answers.writeInt(said.size());
            said.writeTo(answers);
            answers.flush();
        }
    }

    /** Only the first status counts: some tools catch whatever is thrown, and exit again. */
    private static void ended(int code) {
        if (status == null) {
            status = code;
        }
        throw new Ended(code);
    }

    private static int run(String[] words, PrintStream out) throws Exception {
        PrintStream stdout = System.out;
        PrintStream stderr = System.err;
        InputStream stdin = System.in;
        status = null;
        hooks.clear();
        System.setOut(out);
        System.setErr(out);
        System.setIn(new ByteArrayInputStream(words[words.length - 1].getBytes("UTF-8")));
        try {
            String[] arguments = new String[words.length - 2];
            System.arraycopy(words, 1, arguments, 0, arguments.length);
            Class.forName(words[0]).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (ClassNotFoundException missing) {
            missing.printStackTrace();
            status = 1;
        } catch (InvocationTargetException thrown) {
            if (!(thrown.getCause() instanceof Ended)) {
                thrown.getCause().printStackTrace();
                status = 1;
            }
        } finally {
            for (Runnable hook : hooks) {
                try {
                    hook.run();
                } catch (Ended again) {
                    // It has ended already.
                }
            }
            System.setOut(stdout);
            System.setErr(stderr);
            System.setIn(stdin);
        }
        return status == null ? 0 : status;
    }
}
