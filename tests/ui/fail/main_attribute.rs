#![allow(unused)]
mod one {
    #[procession::main]
    fn start() {}
}

mod two {
    #[procession::main]
    async fn main() {}
}

mod three {
    #[procession::main(workers = 3)]
    fn main(args: Vec<String>) {}
}

mod four {
    #[procession::main(crate = "procession")]
    fn main() {}
}

mod five {
    #[procession::main(crate = procession, crate = procession)]
    fn main() {}
}

mod six {
    #[procession::main(crate)]
    fn main() {}
}

mod seven {
    #[procession::main(5)]
    fn main() {}
}

#[procession::main]
struct Main;

fn main() {}
